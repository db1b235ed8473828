"""A node without a reactor: the same objects run in a daemon and in the simulation.

Its parts import each other one way, as ``.importlinter`` says; ``node.py`` wires them.
"""
