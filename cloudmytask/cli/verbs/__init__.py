"""The verbs of ``cmt``, a module for each family.

Invariant: a verb's module is imported when the verb is called, not before.
"""
