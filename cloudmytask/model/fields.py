"""What one field of a value may hold: the ranges, lengths and spellings that a document is held to when it is read.

Invariant: they are declared here or at the field, once; a value that is made in the program is not checked again. The
``description`` of a spelling is the end of the sentence that refuses another one: ``client: '' is not a ClientID …``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

INTEGER_MAX = 2**63 - 1
"""The largest whole number that a column of a database holds."""
_DOUBLE_MAX = 1.7976931348623157e308
YEAR_9999 = 253_402_300_799.0
"""UTC seconds of the last moment that has a spelling in ISO 8601."""

Integer = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Ordinal = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Number = Annotated[float, Meta(ge=-_DOUBLE_MAX, le=_DOUBLE_MAX)]
"""Finite: neither infinity nor NaN is within these limits."""
Seconds = Annotated[float, Meta(ge=0.0, le=_DOUBLE_MAX)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Moment = Annotated[float, Meta(ge=0.0, le=YEAR_9999)]
"""UTC seconds since the epoch."""

NAME_MAX = 64
"""Characters in a name of an instance, of a cluster, of a client."""
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
Word = Annotated[
    str, Meta(pattern=rf"^[ -~]{{1,{NAME_MAX}}}\Z", description=f"1 to {NAME_MAX} printable ASCII characters")
]
"""A name inside a datagram: in ASCII, so that what is within its limits fits."""
Words = Annotated[
    str, Meta(pattern=rf"^[ -~]{{0,{NAME_MAX}}}\Z", description=f"up to {NAME_MAX} printable ASCII characters")
]
Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^(?=.{1,128}\Z)[A-Za-z0-9._:%\[\]-]+:"
        r"(?!0+\Z)0*(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])\Z",
        description="HOST:PORT",
    ),
]
Note = Annotated[str, Meta(max_length=1000)]
"""A sentence of another instance for a person."""
Label = Annotated[str, Meta(max_length=NAME_MAX)]
"""A name that may be absent."""
Where = Annotated[str, Meta(max_length=300)]
"""An address, as far as it is for people or will be looked at when somebody connects to it."""

CLIENT_MAX = 64
CLIENT = rf"^[A-Za-z0-9._@+-]{{1,{CLIENT_MAX}}}\Z"
DIGEST = Meta(pattern=r"^[0-9a-f]{64}\Z", description="a sha256 of 64 lowercase hexadecimal digits")
CLIENT_ID = Meta(pattern=CLIENT, description=f"a ClientID: 1 to {CLIENT_MAX} letters, digits or . _ @ + - are")
NODE_ID = Meta(pattern=r"^[0-9a-f]{32}\Z", description="32 lowercase hexadecimal digits")
BOOT_ID = Meta(pattern=r"^(?:[0-9a-f]{16})?\Z", description="16 lowercase hexadecimal digits")
JOB_ID = Meta(pattern=r"^[0-9a-hjkmnp-tv-z]{17}\Z", description="a job id of 17 symbols")

ALWAYS: dict[str, Any] = {"always": True}
"""Metadata of a field that stands in documents even at its default."""
