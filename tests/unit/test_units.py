"""Durations and sizes: accepted forms, refused ones, and that formatting is the inverse of parsing."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudmytask.core.units import format_duration, format_size, parse_duration, parse_size

DURATIONS = st.floats(min_value=0, max_value=1e15, allow_nan=False, allow_infinity=False)
SIZES = st.integers(min_value=0, max_value=2**63)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400), ("30", 30), (".5s", 0.5), (" 5 m ", 300)],
)
def test_duration_text(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("number", [0, 1, 2.5])
def test_duration_number_is_seconds(number: float) -> None:
    assert parse_duration(number) == number


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("17B", 17),
        ("500M", 500 * 1024**2),
        ("2G", 2 * 1024**3),
        ("64KiB", 65_536),
        ("64k", 65_536),
        ("1.5T", 3 * 2**39),
    ],
)
def test_size_text(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("number", [0, 1, 2.0, 2**70])
def test_size_number_is_bytes(number: float) -> None:
    assert parse_size(number) == number


BAD = ["", "s", "-1s", "-1", "nan", "inf", "1e3", "1 2", "1s2", "٣", "1,5", math.nan, math.inf, -math.inf, -1, True]


@pytest.mark.parametrize("value", [*BAD, "1y", "5ms", 10**400])
def test_bad_duration_is_named_with_the_accepted_forms(value: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration: give a number of seconds") as caught:
        parse_duration(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [*BAD, "1X", "1KB", "1Ki", 0.5])
def test_bad_size_is_named_with_the_accepted_forms(value: str | float) -> None:
    with pytest.raises(ValueError, match="is not a size: give a number of bytes") as caught:
        parse_size(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (604_800, "7d"), (90, "90s"), (5400, "90m"), (7200, "2h"), (0.5, "0.5s")]
)
def test_duration_is_shown_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1000, "1000"), (65_536, "64K"), (1024**3, "1G")])
def test_size_is_shown_in_its_largest_whole_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@given(DURATIONS)
@example(1e-300)
@example(0.1)
def test_duration_survives_the_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(SIZES)
def test_size_survives_the_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert math.isfinite(seconds)
    assert seconds >= 0


@given(st.text() | st.floats() | st.integers())
def test_any_value_is_a_size_or_a_value_error(value: str | float) -> None:
    try:
        size = parse_size(value)
    except ValueError:
        return
    assert size >= 0
