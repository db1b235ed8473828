"""Bytes and their names, and what every store agrees on about blobs that no job refers to yet.

Invariant: the name of a blob depends on its bytes alone.
"""

from __future__ import annotations

import hashlib

from cloudmytask.model.errors import BlobCorrupt
from cloudmytask.model.job import Blob, Content, Digest


def digest_of(data: bytes) -> Digest:
    """The name of these bytes. Hashing is work: of large data, not on the reactor's thread."""
    return Digest(hashlib.sha256(data).hexdigest())


def blob_of(data: bytes) -> Blob:
    """The blob with these bytes."""
    return Blob(digest_of(data), len(data))


def verified(content: Content) -> bytes:
    """The bytes of ``content``.

    :raises BlobCorrupt: they do not match the digest.
    """
    if blob_of(content.data) != content.blob:
        raise BlobCorrupt(f"The bytes given for blob {content.blob.digest} do not match it.")
    return content.data


EMPTY = Content(blob_of(b""), b"")
"""Is always there: it needs no storing."""

GRACE = 3600.0
"""Seconds between bringing a blob and referring to it, for which it is kept."""

UPLOAD_PREFIX = "upload-"
"""Begins the names of spools that are worth nothing after a restart."""
