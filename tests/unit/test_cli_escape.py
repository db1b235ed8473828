"""What a script writes cannot command the terminal that shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.cli.terminal.escape import Escaper, one_line


def escaped(*pieces: bytes) -> bytes:
    escaper = Escaper()
    return b"".join([escaper.feed(piece) for piece in pieces]) + escaper.end()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\n\ttext", b"plain\n\ttext"),
        (b"\x1b[31mred", rb"\x1b[31mred"),
        (b"over\rwritten\b\x07", rb"over\x0dwritten\x08\x07"),
        (b"\x7f", rb"\x7f"),
        ("\x9b2J".encode(), rb"\x9b2J"),
        (b"\x9b2J", rb"\x9b2J"),
        ("a\u202eb\u2066c\u2069".encode(), rb"a\u202eb\u2066c\u2069"),
        ("grün ✓".encode(), "grün ✓".encode()),
        (b"\xff\xfe", rb"\xff\xfe"),
        (b"\xed\xa0\x80", rb"\xed\xa0\x80"),
        (b"\0", rb"\x00"),
    ],
)
def test_controls_are_shown_and_text_is_kept(raw: bytes, shown: bytes) -> None:
    assert escaped(raw) == shown


def test_a_character_may_be_cut_between_two_pieces() -> None:
    assert escaped(b"gr\xc3", b"\xbcn") == "grün".encode()
    assert escaped(b"\xe2\x80", b"\xae") == rb"\u202e"


def test_what_never_became_a_character_is_shown_at_the_end() -> None:
    assert escaped(b"ab\xe2\x82") == rb"ab\xe2\x82"


@given(st.binary(), st.integers(min_value=0, max_value=64))
def test_it_is_the_same_wherever_it_is_cut_and_never_holds_a_control(raw: bytes, cut: int) -> None:
    whole = escaped(raw)
    assert escaped(raw[:cut], raw[cut:]) == whole
    assert all(character in "\n\t" or character.isprintable() or ord(character) >= 0xA0 for character in whole.decode())
    assert b"\x1b" not in whole


def test_an_escaper_can_be_used_again() -> None:
    escaper = Escaper()
    assert escaper.feed(b"\xe2") + escaper.end() == rb"\xe2"
    assert escaper.feed(b"ok") == b"ok"


@given(st.text())
def test_a_name_never_breaks_a_line(text: str) -> None:
    shown = one_line(text)
    assert not {"\n", "\t", "\x1b", "\x9b"} & set(shown)
    shown.encode()


def test_bytes_of_arguments_that_are_not_text_can_be_shown() -> None:
    assert one_line("caf\udce9") == "caf\\udce9"
