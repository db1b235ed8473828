"""A node without a reactor: the same objects run in a daemon and in the simulation.

Each role (gate, ledger, executor, outputs, uploads) knows only the boundaries; ``node.py`` wires them.
"""
