"""The durable store of one node: records and small blobs in SQLite, large blobs, spools and work directories as files.

Invariant: a Deferred of the store fires with success only when what it stands for survives a loss of power.
"""
