"""Which job ids may be in the database: a Bloom filter, so that a fresh id costs no query.

Invariant: an id that was added is always said to be possible. One that was not is said to be possible now and then:
1 in 25,000 times with 100,000 ids, 1 in 40 with a million, which costs a query and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from attrs import define, field

_BITS = 23
"""Bits of an index: the filter has 2**23 bits, a mebibyte."""
_MASK = (1 << _BITS) - 1


@define(eq=False)
class KnownIds:
    """See the module."""

    _filter: bytearray = field(init=False, factory=lambda: bytearray(1 << (_BITS - 3)))

    def add(self, job_id: str) -> None:
        """From now on it is possible."""
        for index in _indices(job_id):
            self._filter[index >> 3] |= 1 << (index & 7)

    def possible(self, job_id: str) -> bool:
        """False only if it was never added."""
        return all(self._filter[index >> 3] >> (index & 7) & 1 for index in _indices(job_id))


def _indices(job_id: str) -> Iterator[int]:
    """Three places; an id is a hash already, so checksums of it spread well enough."""
    encoded = job_id.encode("utf-8", "surrogatepass")
    mixed = zlib.crc32(encoded) | zlib.crc32(encoded, 0x9E3779B9) << 32 | zlib.adler32(encoded) << 64
    for _ in range(3):
        yield mixed & _MASK
        mixed >>= _BITS
