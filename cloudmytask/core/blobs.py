"""Bytes and their names, and what every store agrees on about blobs that no job refers to yet.

Invariant: the name of a blob depends on its bytes alone.
"""

from __future__ import annotations

import hashlib

from cloudmytask.model.job import Blob, Content, Digest


def digest_of(data: bytes) -> Digest:
    """The name of these bytes. Hashing is work: of large data, not on the reactor's thread."""
    return Digest(hashlib.sha256(data).hexdigest())


def blob_of(data: bytes) -> Blob:
    """The blob with these bytes."""
    return Blob(digest_of(data), len(data))


EMPTY = Content(blob_of(b""), b"")
"""Is always there: it needs no storing."""

GRACE = 3600.0
"""Seconds between bringing a blob and referring to it, for which it is kept."""

UPLOAD_PREFIX = "upload-"
"""Begins the names of spools that are worth nothing after a restart."""
