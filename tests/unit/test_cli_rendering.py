"""Jobs as text and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.cli.follow import line_start
from cloudmytask.cli.terminal.jobs import (
    COLUMNS,
    SHRINK,
    details,
    rows,
    seconds_text,
    shortest,
    when,
    with_output,
)
from cloudmytask.cli.terminal.tables import aligned, fitted
from cloudmytask.cli.verbs.progress import line
from cloudmytask.model.job import StreamName

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def document(**fields: Any) -> dict[str, Any]:
    return {
        "id": "0123456789abcdefg",
        "name": "fit.py",
        "state": "failed",
        "exit_code": 3,
        "signal": None,
        "submitted": "2026-05-04T11:58:20.000Z",
        "wall_seconds": 61.25,
        "executor": "lab-7",
        "origin": "lab-1",
        **fields,
    }


def test_a_row_in_full() -> None:
    (row,) = rows([document()], None)
    assert row == ("0123456789abcdefg", "fit.py", "failed", "3", "2026-05-04T11:58:20.000Z", "61.2s", "lab-7")
    assert len(row) == len(COLUMNS)


def test_a_row_for_a_person() -> None:
    (row,) = rows([document()], NOW)
    assert row == ("012345", "fit.py", "failed", "3", "100s ago", "61.2s", "lab-7")


def test_a_name_cannot_break_a_row() -> None:
    (row,) = rows([document(name="a\nb\x1b[2J")], None)
    assert row[1] == r"a\x0ab\x1b[2J"


def test_what_is_not_known_is_a_dash() -> None:
    (row,) = rows([document(exit_code=None, wall_seconds=None, executor=None, submitted=None)], NOW)
    assert row[3:] == ("-", "-", "-", "lab-1")


def test_a_signal_is_told_from_a_code() -> None:
    (row,) = rows([document(exit_code=None, signal=9)], None)
    assert row[3] == "SIG9"


def test_ids_are_shown_as_long_as_it_takes_to_tell_them_apart() -> None:
    assert shortest([]) == 6
    assert shortest(["abcdefgh", "abcdefxh", "zzzzzzzz"]) == 7
    assert shortest(["same", "same"]) == 6


@pytest.mark.parametrize(
    ("age", "text"),
    [(0, "0s ago"), (-5, "0s ago"), (119, "119s ago"), (120, "2m ago"), (7200, "2h ago"), (172_800, "2d ago")],
)
def test_ages(age: int, text: str) -> None:
    assert when((NOW - timedelta(seconds=age)).isoformat(), NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.12s"), (90.04, "90.0s"), (660, "11m"), (7380, "2h03m"), (None, "-")]
)
def test_durations_that_were_measured(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_columns_are_aligned_without_trailing_blanks() -> None:
    assert aligned([("A", "B"), ("long", "x"), ("y", "")]) == "A     B\nlong  x\ny"


@pytest.mark.parametrize("name", [1, 10, 40, 500])
@pytest.mark.parametrize("node", [2, 12, 64])
def test_a_table_fits_eighty_columns(name: int, node: int) -> None:
    widths = fitted(COLUMNS, [8, name, 9, 5, 8, 6, node], 80, SHRINK)
    assert sum(widths) + 2 * 6 <= 80
    assert (widths[0], widths[2:6]) == (8, [9, 5, 8, 6])
    assert fitted(COLUMNS, [8, name, 9, 5, 8, 6, node], 1000, SHRINK) == [8, name, 9, 5, 8, 6, node]


def test_details_leave_out_what_is_not_known_and_escape_what_is() -> None:
    shown = details(document(detail="it \x1b[31mbroke", timeout=90.0, peak_memory=None, attempts=[]))
    assert "exit code:" in shown
    assert r"it \x1b[31mbroke" in shown
    assert "90s" in shown
    assert "memory" not in shown
    assert "None" not in shown


def test_output_in_json_is_text_where_it_is_text() -> None:
    answer = with_output(
        {"id": "x"},
        {StreamName.STDOUT: bytearray("ü\n".encode()), StreamName.STDERR: bytearray(b"\xff")},
        {StreamName.STDERR: 7},
    )
    discarded = {"stdout": 0, "stderr": 7}
    assert answer == {"id": "x", "stdout": "ü\n", "stderr": None, "stderr_base64": "/w==", "discarded": discarded}
    json.dumps(answer)


@given(st.text(), st.integers(min_value=2, max_value=200))
def test_the_progress_line_is_one_line(sentence: str, width: int) -> None:
    shown = line("waiting", 12.4, sentence, width)
    assert len(shown) < max(width, 2)
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("data", "lines", "place"),
    [
        (b"a\nb\nc\n", 1, 4),
        (b"a\nb\nc\n", 2, 2),
        (b"a\nb\nc\n", 3, None),
        (b"a\nb\nc", 1, 4),
        (b"a\nb\nc\n", 0, 6),
        (b"", 3, None),
        (b"\n\n\n", 1, 2),
        (b"no newline", 1, None),
    ],
)
def test_where_the_last_lines_begin(data: bytes, lines: int, place: int | None) -> None:
    assert line_start(data, lines) == place


@given(st.lists(st.binary(max_size=3).map(lambda part: part.replace(b"\n", b""))), st.integers(1, 10))
def test_the_last_lines_are_as_many_as_asked_for(parts: list[bytes], lines: int) -> None:
    data = b"".join(part + b"\n" for part in parts)
    start = line_start(data, lines) or 0
    assert data[start:].count(b"\n") == min(lines, len(parts))
