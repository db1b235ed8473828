"""What the reactor thread knows of blobs ahead of the database.

Invariant: a content is found here from the call that saves it until that save has succeeded or failed; a blob that
somebody just brought or asked for is protected from collection for an hour, so that the job that will refer to it
finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloudmytask.model import Blob, Content, Digest
from cloudmytask.store.leaves import digest_of

EMPTY = Content(Blob(digest_of(b""), 0), b"")
"""Is always there: it needs no storing."""

GRACE = 3600.0
"""Seconds between bringing a blob and referring to it."""


class ArrivingContents:
    """Contents of saves that are under way, and the empty one."""

    def __init__(self) -> None:
        self._contents: dict[Digest, list[Content]] = {EMPTY.blob.digest: [EMPTY]}

    def add(self, contents: Sequence[Content]) -> None:
        for content in contents:
            self._contents.setdefault(content.blob.digest, []).append(content)

    def settle(self, contents: Sequence[Content]) -> None:
        """Their save has ended, one way or the other."""
        for content in contents:
            saves = self._contents[content.blob.digest]
            saves.pop()
            if not saves:
                del self._contents[content.blob.digest]

    def get(self, digest: Digest) -> Content | None:
        saves = self._contents.get(digest)
        return saves[0] if saves else None


class FreshBlobs:
    """Blobs that were brought or asked for a short while ago, whether or not a job refers to them by now."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._noted: dict[Digest, float] = {}

    def note(self, digest: Digest) -> None:
        self._noted[digest] = self._monotonic()

    def drop(self, digest: Digest) -> None:
        self._noted.pop(digest, None)

    def digests(self) -> frozenset[Digest]:
        """Those of the last :data:`GRACE` seconds; older ones are dropped."""
        oldest = self._monotonic() - GRACE
        self._noted = {digest: at for digest, at in self._noted.items() if at > oldest}
        return frozenset(self._noted)
