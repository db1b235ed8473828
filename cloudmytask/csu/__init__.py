"""The Central Supervisory Unit without a reactor: registry of nodes, history of their load, blacklist.

Each role knows only the boundaries; ``unit.py`` wires them.
"""
