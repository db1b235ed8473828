"""What draws and writes: the console, a script's output, tables, trees, load.

Invariant: nothing here talks to a node.
"""
