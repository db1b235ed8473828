"""The secret that the instances of a cluster share, from its file.

Invariant: a key that comes out has at least ``KEY_MIN`` bytes and could be read by nobody but its owner.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloudmytask.model.errors import ConfigurationError

KEY_MIN = 16
"""Bytes that a secret needs at the least."""
KEY_MAX = 4096
"""Bytes; a larger file is something else."""


def load_key(path: Path) -> bytes:
    """The bytes of the file, without line ends at its end, which editors add. May block: for the start only.

    :raises ConfigurationError: it cannot be read, is too short or too long, belongs to somebody else, or others than
        its owner may read or change it.
    """
    place = f"cluster_key_file: {str(path)!r}"
    try:
        # without O_NONBLOCK a FIFO would wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{place} is not a regular file.")
            if found.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(f"{place} belongs to another user.")
            if found.st_mode & 0o077:
                raise ConfigurationError(
                    f"{place} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner may use it;"
                    f" run chmod 600 on it, and make a new key if somebody may have read it."
                )
            secret = file.read(KEY_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{place} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"{place} is not a path.") from None
    if len(secret) > KEY_MAX:
        raise ConfigurationError(f"{place} is larger than {KEY_MAX} bytes: it is no key.")
    secret = secret.rstrip(b"\r\n")
    if len(secret) < KEY_MIN:
        raise ConfigurationError(f"{place} holds {len(secret)} bytes: a key has at least {KEY_MIN}.")
    return secret
