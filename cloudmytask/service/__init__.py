"""The node as a service of Twisted: claim, start order, READY, drain, stop.

Invariant: a node that says it is ready listens, has opened its store and has taken over its jobs; one that cannot does
not run.
"""
