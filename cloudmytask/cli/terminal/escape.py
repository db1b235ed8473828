"""Makes the bytes of a stranger harmless for a terminal.

Invariant: what comes out is UTF-8 that moves no cursor but by newline and tab, sets no title, colors nothing, and shows
text in the order in which it is stored. Nothing is left out: what is not shown as it is, is shown as an escape.
"""

from __future__ import annotations

import codecs

_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)}
_BIDIRECTIONAL = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Overrides and isolates, with which text can be made to read otherwise than it is (Unicode TR 36)."""
_SURROGATES = range(0xD800, 0xE000)
"""What Python makes of bytes in file names and arguments that are not UTF-8; nothing can encode them."""

_BY_ESCAPE = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in _BIDIRECTIONAL},
}
_LINES = {code: escape for code, escape in _BY_ESCAPE.items() if chr(code) not in "\n\t"}
_ONE_LINE = {**_BY_ESCAPE, **{code: f"\\u{code:04x}" for code in _SURROGATES}}


class Escaper:
    """One stream of output on its way to a terminal; a character may be cut anywhere between two pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, data: bytes) -> bytes:
        """Translate the next piece, as far as it can be told what it means."""
        return self._decoder.decode(data).translate(_LINES).encode()

    def end(self) -> bytes:
        """Give out what was held back of a character that never became complete; the escaper can then be used again."""
        rest = self._decoder.decode(b"", final=True).translate(_LINES).encode()
        self._decoder.reset()
        return rest


def one_line(text: str) -> str:
    """Make a name or a note fit for the middle of a line of ours: no control character stays, line breaks included."""
    return text.translate(_ONE_LINE)
