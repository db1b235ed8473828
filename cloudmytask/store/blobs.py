"""Blobs: rows of the table ``blobs``, and files ``blobs/<first two digits>/<sha256>`` for the large ones.

Invariant: a row for a large blob implies its durable file, because the file comes into place before the row is
committed and leaves only after the row's deletion is. Both happen in the writer's thread, so they cannot overtake one
another; a file without a row is the trace of a crash, and is deleted after the next start.

Every blob that no job refers to is in the table ``loose``, so a collection never looks at the others. It goes in steps,
and no commit waits for more than one of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from attrs import frozen

from cloudmytask.core.blobs import verified
from cloudmytask.model.job import Blob, Content, Digest
from cloudmytask.store.blob_reader import Measured
from cloudmytask.store.files import file_of, sync

STEP_BLOBS = 100
"""Loose blobs that one step of a collection looks at."""
STEP_BYTES = 1024 * 1024
"""Bytes of small blobs that one step deletes; it stops when it has reached them."""


def put_content(connection: sqlite3.Connection, content: Content, brought: float | None = None) -> None:
    """Store a small blob; one whose stored bytes have rotted is thereby mended.

    :param brought: the present moment (UTC seconds) if no job comes along that refers to it.
    :raises BlobCorrupt: the bytes do not match their digest.
    """
    verified(content)
    connection.execute(
        """
        INSERT INTO blobs (digest, size, brought, data) VALUES (?, ?, ?, ?)
        ON CONFLICT (digest) DO UPDATE SET data = excluded.data, brought = coalesce(excluded.brought, brought)
        WHERE leaves IS NULL AND (data IS NOT excluded.data OR excluded.brought IS NOT NULL)
        """,
        (content.blob.digest, content.blob.size, brought, content.data),
    )
    if brought is not None:
        loosen(connection, [content.blob.digest])


def put_contents(connection: sqlite3.Connection, contents: Sequence[Content], needed: Collection[Digest] = ()) -> None:
    """Store the small blobs that came along with a job, which refers to those in ``needed``.

    :raises BlobCorrupt: the bytes of one do not match its digest.
    """
    for content in contents:
        put_content(connection, content)
    loosen(connection, (content.blob.digest for content in contents if content.blob.digest not in needed))


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
        sync(directory)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        if not target.samefile(source):
            # the same bytes came in before; should those have rotted, they are thereby mended
            fresh = target.with_name(f".{digest}")
            fresh.unlink(missing_ok=True)
            fresh.hardlink_to(source)
            fresh.rename(target)
    sync(target.parent)
    connection.execute(
        """
        INSERT INTO blobs (digest, size, brought, leaves) VALUES (?, ?, ?, ?)
        ON CONFLICT (digest) DO UPDATE SET brought = excluded.brought, leaves = excluded.leaves, data = NULL
        """,
        (digest, measured.blob.size, brought, measured.leaves),
    )
    loosen(connection, [digest])


def brought_since(connection: sqlite3.Connection, moment: float) -> list[tuple[Digest, float]]:
    """The blobs that came in ahead of a job after ``moment``, and when (UTC seconds)."""
    return connection.execute("SELECT digest, brought FROM blobs WHERE brought > ?", (moment,)).fetchall()


def loosen(connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
    """Note that perhaps no job refers to these blobs: a collection will have a look at them, and at no others."""
    connection.executemany("INSERT OR IGNORE INTO loose (digest) VALUES (?)", [(digest,) for digest in digests])


@frozen
class Sweep:
    """What one step of a collection came to."""

    gone: tuple[Blob, ...]
    """Their rows are deleted; the large ones' files still have to be buried."""
    last: Digest | None
    """Where the next step goes on; None if there is no more to look at."""


def sweep_loose(connection: sqlite3.Connection, after: str, keep: Collection[Digest]) -> Sweep:
    """Delete the rows of loose blobs that no job refers to, but of those in ``keep``.

    One step: it looks at the first :data:`STEP_BLOBS` after the digest ``after``, fewer if they are large rows.
    """
    rows = connection.execute(
        """
        SELECT loose.digest, blobs.size, blobs.leaves IS NULL,
            EXISTS (SELECT 1 FROM job_blobs WHERE job_blobs.digest = loose.digest)
            OR EXISTS (SELECT 1 FROM held_blobs WHERE held_blobs.digest = loose.digest)
        FROM loose LEFT JOIN blobs USING (digest) WHERE loose.digest > ? ORDER BY loose.digest LIMIT ?
        """,
        (after, STEP_BLOBS),
    ).fetchall()
    gone, settled, last, room = [], [], None, STEP_BYTES
    for digest, size, small, needed in rows:
        if not needed and digest in keep:
            continue
        settled.append((digest,))
        if not needed and size is not None:
            gone.append(Blob(digest, size))
            room -= size if small else 0
        if room <= 0:
            last = digest
            break
    else:
        last = rows[-1][0] if len(rows) == STEP_BLOBS else None
    connection.executemany("DELETE FROM loose WHERE digest = ?", settled)
    connection.executemany("DELETE FROM blobs WHERE digest = ?", [(blob.digest,) for blob in gone])
    return Sweep(tuple(gone), last)


def bury(connection: sqlite3.Connection, directory: Path, blobs: Sequence[Blob]) -> list[Path]:
    """Take the files of deleted blobs out of the way, but of those that came back meanwhile.

    Deleting a large file takes long; what is returned is to be unlinked in another thread.
    """
    return bury_files(connection, directory, [file_of(directory, blob.digest) for blob in blobs])


def bury_files(connection: sqlite3.Connection, directory: Path, files: Sequence[Path]) -> list[Path]:
    """The same for files among the large blobs, but for those that a row knows."""
    buried = []
    for source in files:
        grave = directory / f".{source.name}"
        if connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (source.name,)).fetchone() is None:
            try:
                source.rename(grave)
            except FileNotFoundError:
                if not grave.exists():  # as after a rollback, when this is done once more
                    continue  # a small blob
            buried.append(grave)
    return buried


@frozen
class Strays:
    """Files that a crash may have left among the blobs."""

    graves: tuple[Path, ...]
    """To be unlinked."""
    suspects: tuple[Path, ...]
    """No row knew them a moment ago: for :func:`bury_files`, since the writer may be at work."""


def strays(connection: sqlite3.Connection, directory: Path) -> Strays:
    """Compare the files with the rows. Takes as long as there are files.

    :raises OSError, sqlite3.Error: they cannot be read.
    """
    graves, suspects = [], []
    for entry in sorted(directory.iterdir()):
        if not entry.is_dir():
            graves.append(entry)
            continue
        for file in sorted(entry.iterdir()):
            row = connection.execute("SELECT 1 FROM blobs WHERE digest = ? AND leaves IS NOT NULL", (file.name,))
            if row.fetchone() is None:
                suspects.append(file)
    return Strays(tuple(graves), tuple(suspects))
