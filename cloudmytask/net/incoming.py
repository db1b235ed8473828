"""The uploads of one connection, by the numbers that its other end gave them.

Invariant: an upload ends by its commit, by its sender's word, or with the connection, and then leaves nothing behind
but the blob that it was for. A number names one upload at a time, also while the node still looks whether it has the
blob.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Upload
from cloudmytask.model.errors import InvalidArgument, UploadFailed
from cloudmytask.model.job import Blob

UPLOADS_MAX = 16
"""Uploads under way on one connection."""


@define(eq=False)
class Incoming:
    """The holder of one number. ``upload``: None while the node still looks whether it has the blob."""

    upload: Upload | None = None


@define(eq=False)
class IncomingUploads:
    """``under_way``: by number.

    :ivar receive: begins to receive a blob; None if it is here already.
    """

    _receive: Callable[[Blob], Deferred[Upload | None]]
    under_way: dict[int, Incoming] = field(init=False, factory=dict)

    def begin(self, number: int, blob: Blob) -> Deferred[dict[str, Any]]:
        """A blob is announced; whether it is here already.

        :raises InvalidArgument: the number is in use, or there are too many.
        """
        if number in self.under_way:
            raise InvalidArgument(f"upload: {number} is under way already")
        if len(self.under_way) >= UPLOADS_MAX:
            raise InvalidArgument(f"upload: {UPLOADS_MAX} are under way already, more are not allowed")
        incoming = self.under_way[number] = Incoming()
        return Deferred.fromCoroutine(self._begin(number, incoming, blob))

    def piece(self, number: int, offset: int, data: bytes) -> Deferred[dict[str, Any]]:
        """The next bytes; answered when more may come.

        :raises UploadFailed: they cannot be kept.
        """
        return self._get(number).append(offset, data).addCallback(lambda _: {})

    def commit(self, number: int) -> Deferred[Blob]:
        """All bytes are here.

        :raises UploadFailed: they are not those of the blob, or cannot be kept.
        """
        upload = self._get(number)
        del self.under_way[number]
        return upload.commit()

    def abort(self, number: int) -> None:
        """Forget one, if there is one of that number."""
        incoming = self.under_way.pop(number, None)
        if incoming is not None and incoming.upload is not None:
            incoming.upload.abort()

    def abort_all(self) -> None:
        """The connection is gone."""
        for number in list(self.under_way):
            self.abort(number)

    async def _begin(self, number: int, incoming: Incoming, blob: Blob) -> dict[str, Any]:
        upload: Upload | None = None
        try:
            upload = await self._receive(blob)
        finally:
            called_off = self.under_way.get(number) is not incoming
            if upload is None and not called_off:
                del self.under_way[number]
        if upload is not None and called_off:
            upload.abort()
        incoming.upload = upload
        return {"present": upload is None}

    def _get(self, number: int) -> Upload:
        incoming = self.under_way.get(number)
        if incoming is None or incoming.upload is None:
            raise UploadFailed(f"upload: {number} is not under way")
        return incoming.upload
