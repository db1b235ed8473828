"""Blobs: rows of the table ``blobs``, and files ``blobs/<first two digits>/<sha256>`` for the large ones.

Invariant: a row for a large blob implies its durable file, because the file comes into place before the row is
committed and leaves only after the row's deletion is. Both happen in the writer's thread, so they cannot overtake one
another; a file without a row is the trace of a crash, and is deleted at the next start.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from cloudmytask.core.blobs import blob_of, digest_of
from cloudmytask.model.errors import BlobCorrupt, BlobMissing
from cloudmytask.model.job import Blob, Content, Digest
from cloudmytask.store.files import read_whole, sync_directory
from cloudmytask.store.leaves import DIGEST_BYTES, LEAF, LeafCache, Measured


def file_of(directory: Path, digest: Digest) -> Path:
    """Where the large blob ``digest`` lies. Only for digests that we computed."""
    return directory / digest[:2] / digest


def put_content(connection: sqlite3.Connection, content: Content, brought: float | None = None) -> None:
    """Store a small blob; one whose stored bytes have rotted is thereby mended.

    :param brought: the present moment (UTC seconds) if no job comes along that refers to it.
    :raises BlobCorrupt: the bytes do not match their digest.
    """
    verify_content(content)
    connection.execute(
        """
        INSERT INTO blobs (digest, size, brought, data) VALUES (?, ?, ?, ?)
        ON CONFLICT (digest) DO UPDATE SET data = excluded.data, brought = coalesce(excluded.brought, brought)
        WHERE leaves IS NULL AND (data IS NOT excluded.data OR excluded.brought IS NOT NULL)
        """,
        (content.blob.digest, content.blob.size, brought, content.data),
    )


def verify_content(content: Content) -> bytes:
    """The bytes of ``content``.

    :raises BlobCorrupt: they do not match the digest.
    """
    if blob_of(content.data) != content.blob:
        raise BlobCorrupt(f"The bytes given for blob {content.blob.digest} do not match it.")
    return content.data


def adopt_file(
    connection: sqlite3.Connection, directory: Path, source: Path, measured: Measured, brought: float
) -> None:
    """Give the durable file ``source`` a second name, among the large blobs. Repeatable.

    A link and not a rename: after a crash before the commit ``source`` is still there.
    """
    digest = measured.blob.digest
    target = file_of(directory, digest)
    if not target.parent.exists():
        target.parent.mkdir(mode=0o700)
        sync_directory(directory)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        if not target.samefile(source):
            # the same bytes came in before; should those have rotted, they are thereby mended
            fresh = target.with_name(f".{digest}")
            fresh.unlink(missing_ok=True)
            fresh.hardlink_to(source)
            fresh.rename(target)
    sync_directory(target.parent)
    connection.execute(
        """
        INSERT INTO blobs (digest, size, brought, leaves) VALUES (?, ?, ?, ?)
        ON CONFLICT (digest) DO UPDATE SET brought = excluded.brought, leaves = excluded.leaves, data = NULL
        """,
        (digest, measured.blob.size, brought, measured.leaves),
    )


def brought_since(connection: sqlite3.Connection, moment: float) -> list[tuple[Digest, float]]:
    """The blobs that came in ahead of a job after ``moment``, and when (UTC seconds)."""
    return connection.execute("SELECT digest, brought FROM blobs WHERE brought > ?", (moment,)).fetchall()


def delete_unreferenced(connection: sqlite3.Connection, keep: Collection[Digest]) -> list[Blob]:
    """Delete the rows that no job refers to, but those in ``keep``. The large ones' files still have to be buried."""
    rows = connection.execute(
        "SELECT digest, size FROM blobs WHERE NOT EXISTS (SELECT 1 FROM job_blobs WHERE digest = blobs.digest)"
    )
    found = [Blob(Digest(digest), size) for digest, size in rows if digest not in keep]
    connection.executemany("DELETE FROM blobs WHERE digest = ?", [(blob.digest,) for blob in found])
    return found


def bury(connection: sqlite3.Connection, directory: Path, blobs: Sequence[Blob]) -> list[Path]:
    """Take the files of deleted blobs out of the way, but of those that came back meanwhile.

    Deleting a large file takes long; what is returned is to be unlinked where nobody waits.
    """
    buried = []
    for blob in blobs:
        source = file_of(directory, blob.digest)
        grave = directory / f".{blob.digest}"
        if connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (blob.digest,)).fetchone() is None:
            try:
                source.rename(grave)
            except FileNotFoundError:
                if not grave.exists():  # as after a rollback, when this is done once more
                    continue  # a small blob
            buried.append(grave)
    return buried


def orphans(connection: sqlite3.Connection, directory: Path) -> list[Path]:
    """Files that no row knows: what a crash left. Only before the writer starts."""
    known = {digest for (digest,) in connection.execute("SELECT digest FROM blobs WHERE leaves IS NOT NULL")}
    found = []
    for entry in sorted(directory.iterdir()):
        files = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        found += [file for file in files if file.name not in known]
    return found


@frozen
class _Row:
    data: bytes | None
    leaves: bytes


@frozen(eq=False)
class BlobSource:
    """Reads blobs through one connection, for the one thread that the connection belongs to."""

    connection: sqlite3.Connection
    directory: Path
    cache: LeafCache

    def has(self, blob: Blob) -> bool:
        """Whether the blob can be read. Small ones are verified, of large ones only the size is."""
        try:
            row = self._row(blob, 0, 0)
            if row.data is not None:
                self.leaf(blob, 0)
                return True
            return file_of(self.directory, blob.digest).stat().st_size == blob.size
        except (BlobMissing, BlobCorrupt, FileNotFoundError):
            return False

    def read(self, blob: Blob, offset: int, size: int) -> bytes:
        """Up to ``size`` verified bytes.

        :raises BlobMissing, BlobCorrupt, OSError, sqlite3.Error:
        """
        if offset >= blob.size:
            # no leaf will be looked at, but an unknown blob must not pass for one that has ended
            self._row(blob, 0, 0)
        first, last = leaf_range(blob, offset, size)
        data = b"".join(self.leaf(blob, index) for index in range(first, last))
        return data[offset - first * LEAF :][:size]

    def leaf(self, blob: Blob, index: int) -> bytes:
        """One verified leaf."""
        data = self.cache.get(blob, index)
        if data is None:
            row = self._row(blob, index, 1)
            if row.data is None:
                [data] = self._file_leaves(blob, index, row.leaves)
            elif len(row.data) == blob.size and digest_of(row.data) == blob.digest:
                data = row.data
            else:
                raise _corrupt(blob)
            self.cache.put(blob.digest, index, data)
        return data

    def copy(self, blob: Blob, write: Callable[[bytes], None]) -> None:
        """Write out all of a blob, each piece verified before. A large one leaves the cache alone."""
        if blob.size <= LEAF:
            write(self.read(blob, 0, blob.size))
            return
        leaves = self._row(blob, 0, (blob.size + LEAF - 1) // LEAF).leaves
        for data in self._file_leaves(blob, 0, leaves):
            write(data)

    def _row(self, blob: Blob, first: int, count: int) -> _Row:
        row = self.connection.execute(
            "SELECT size, data, substr(leaves, ?, ?) FROM blobs WHERE digest = ?",
            (first * DIGEST_BYTES + 1, count * DIGEST_BYTES, blob.digest),
        ).fetchone()
        if row is None or row[0] != blob.size:
            raise BlobMissing(f"The blob {blob.digest} of {blob.size} bytes is not on this node.")
        data, leaves = row[1], row[2] or b""
        if data is None and len(leaves) != count * DIGEST_BYTES:
            raise _corrupt(blob)
        return _Row(data, leaves)

    def _file_leaves(self, blob: Blob, first: int, leaves: bytes) -> Iterator[bytes]:
        """The leaves from ``first`` on, as many as there are digests in ``leaves``."""
        try:
            descriptor = os.open(file_of(self.directory, blob.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise BlobMissing(f"The file of blob {blob.digest} is gone.") from error
        try:
            for start in range(0, len(leaves), DIGEST_BYTES):
                offset = (first + start // DIGEST_BYTES) * LEAF
                data = read_whole(descriptor, min(LEAF, blob.size - offset), offset)
                if bytes.fromhex(digest_of(data)) != leaves[start : start + DIGEST_BYTES]:
                    raise _corrupt(blob)
                yield data
        finally:
            os.close(descriptor)


def leaf_range(blob: Blob, offset: int, size: int) -> tuple[int, int]:
    """First leaf, and the one after the last, that ``size`` bytes from ``offset`` on lie in."""
    end = min(offset + size, blob.size)
    if offset >= end:
        return (0, 0)
    return (offset // LEAF, (end + LEAF - 1) // LEAF)


def _corrupt(blob: Blob) -> BlobCorrupt:
    return BlobCorrupt(f"The stored bytes of blob {blob.digest} do not match it.")
