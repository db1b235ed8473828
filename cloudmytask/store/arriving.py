"""What the reactor thread knows of blobs ahead of the database.

Invariant: a content is found here from the call that saves it until that save has succeeded or failed; a blob that
somebody just brought or asked for is protected from collection for an hour, so that the job that will refer to it
finds it. For one that is being deleted already, the question whether it is here waits until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed

from cloudmytask.core.blobs import EMPTY, GRACE
from cloudmytask.model.job import Content, Digest

T = TypeVar("T")


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
    """Blobs that were brought or asked for a short while ago, and that no job has come to refer to since."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._noted: dict[Digest, float] = {}
        self._asked: dict[Digest, int] = {}

    def note(self, digest: Digest, age: float = 0.0) -> None:
        """It was brought ``age`` seconds ago."""
        self._noted[digest] = self._monotonic() - age

    def claim(self, digests: Iterable[Digest]) -> None:
        """A job refers to them now: from here on they live as long as it does."""
        for digest in digests:
            self._noted.pop(digest, None)

    def ask(self, digest: Digest) -> None:
        """Somebody wants to know whether it is here; :meth:`answer` follows. A collection may come in between."""
        self._asked[digest] = self._asked.get(digest, 0) + 1

    def answer(self, digest: Digest, found: bool) -> None:
        """The one who asked is told; from a yes on the hour runs."""
        self._asked[digest] -= 1
        if not self._asked[digest]:
            del self._asked[digest]
        if found:
            self.note(digest)

    def digests(self) -> frozenset[Digest]:
        """Those of the last :data:`GRACE` seconds, and those that are asked for; older ones are dropped."""
        oldest = self._monotonic() - GRACE
        self._noted = {digest: at for digest, at in self._noted.items() if at > oldest}
        return frozenset((*self._noted, *self._asked))


class Deletions:
    """Deletes of blobs that are under way.

    What a delete spares is settled when it is submitted. Until it has taken effect, a look at the disk would still find
    what it is going to take.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting: list[Deferred[None]] = []

    def add(self, deleting: Deferred[T]) -> Deferred[T]:
        """``deleting`` was submitted; the same Deferred."""
        self._under_way += 1
        return deleting.addBoth(self._one_ended)

    def ended(self) -> Deferred[None]:
        """Fires when every delete that was added so far has ended, one way or the other."""
        if not self._under_way:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def _one_ended(self, result: T) -> T:
        self._under_way -= 1
        if not self._under_way:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)
        return result
