"""What has to be on a node before it can take a job: its script and its input, each named by its digest.

Invariant: bytes travel only to whoever lacks them; what is small rides along, what is large goes ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from cloudmytask.boundaries import JobStore, Link
from cloudmytask.model.job import Blob, Content, JobSpec

RIDES_MAX = 60 * 1024
"""Bytes of a blob that rides along; it has to fit into one AMP value."""


def needed(spec: JobSpec) -> list[Blob]:
    """The blobs of a job that have any bytes."""
    return [blob for blob in (spec.script, spec.stdin) if blob is not None and blob.size]


async def missing(store: JobStore, spec: JobSpec, brought: Sequence[Content]) -> tuple[Blob, ...]:
    """What is neither here nor came along."""
    blobs = {content.blob for content in brought}
    return tuple([blob for blob in needed(spec) if blob not in blobs and not await store.has(blob)])


async def packed(store: JobStore, blobs: Sequence[Blob]) -> list[Content]:
    """Those that are small, with their bytes.

    :raises BlobMissing, BlobCorrupt: one is not here any more.
    """
    return [Content(blob, await store.read(blob, 0, blob.size)) for blob in blobs if blob.size <= RIDES_MAX]


async def brought(store: JobStore, link: Link, blobs: Sequence[Blob]) -> list[Content]:
    """Send the large ones ahead; the small ones, to ride along.

    :raises CloudMyTaskError: the other end declined, or one is not here any more.
    """
    for blob in blobs:
        if blob.size > RIDES_MAX:
            await _sent(store, link, blob)
    return await packed(store, blobs)


def _sent(store: JobStore, link: Link, blob: Blob) -> Deferred[None]:
    return link.send_blob(blob, lambda offset, size: store.read(blob, offset, size))
