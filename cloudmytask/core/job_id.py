"""Job ids: short, safe to retype, the same wherever they are computed.

An id is 16 Crockford base32 symbols (80 bits of a hash of client and idempotency key) and one check symbol.
Invariant: the check symbol catches every single mistyped symbol and every exchange of two symbols; letters that
look alike (o and 0, i, l and 1) read alike; case and dashes do not matter.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode

from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import ClientId, JobId

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32: no i, l, o, u."""
SYMBOLS = 16
LENGTH = SYMBOLS + 1
KEY_MAX = 128
"""Characters in an idempotency key."""

_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ALPHABET.encode())
_VALUE = {symbol: value for value, symbol in enumerate(ALPHABET)}
_LOOKALIKES = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None})
_FIELD = 0b100101  # x^5 + x^2 + 1, irreducible: arithmetic in GF(32)


def job_id(client: ClientId, key: str) -> JobId:
    """The id of the job that ``client`` submits under ``key``."""
    digest = hashlib.sha256(b"cloudmytask job\0%b\0%b" % (client.encode(), key.encode())).digest()
    body = b32encode(digest[: SYMBOLS * 5 // 8]).translate(_CROCKFORD).decode()
    return JobId(body + _check_symbol(body))


def normalize(text: str) -> str:
    """An id, or the beginning of one, as a person typed it, in canonical form.

    :raises InvalidArgument: a symbol that no id has, too many of them, or a mistyped one.
    """
    canonical = text.strip().lower().translate(_LOOKALIKES)
    if not canonical:
        raise InvalidArgument("job id: empty, but at least one symbol is needed")
    if len(canonical) > LENGTH:
        raise InvalidArgument(f"job id: {text[:40]!r} has {len(canonical)} symbols, but ids have {LENGTH}")
    for symbol in canonical:
        if symbol not in _VALUE:
            raise InvalidArgument(f"job id: {text!r} has {symbol!r}, which no id contains")
    if len(canonical) == LENGTH and _check_symbol(canonical[:SYMBOLS]) != canonical[SYMBOLS]:
        raise InvalidArgument(f"job id: {text!r} is mistyped (its check symbol does not match)")
    return canonical


def _check_symbol(body: str) -> str:
    """Sum of the symbols in GF(32), each weighted by another power of x, so that order and value both count."""
    total = 0
    for products, symbol in zip(_PRODUCTS, body, strict=True):
        total ^= products[symbol]
    return ALPHABET[total]


def _double(value: int) -> int:
    value <<= 1
    return value ^ _FIELD if value & 32 else value


def _multiply(left: int, right: int) -> int:
    product = 0
    while right:
        if right & 1:
            product ^= left
        left, right = _double(left), right >> 1
    return product


def _products() -> list[dict[str, int]]:
    """For each place of an id: what each symbol adds to the sum."""
    weight, tables = 1, []
    for _ in range(SYMBOLS):
        weight = _double(weight)
        tables.append({symbol: _multiply(weight, value) for symbol, value in _VALUE.items()})
    return tables


_PRODUCTS = _products()
