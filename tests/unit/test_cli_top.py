"""One frame of ``cmt top``, and the history as lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.cli.reach import supervisors
from cloudmytask.cli.terminal.tables import drawn
from cloudmytask.cli.terminal.top import (
    BAR,
    HISTORY_HEADERS,
    Moment,
    bar,
    development,
    frame,
    history_rows,
    line,
    summary,
    width_for,
)
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.cluster import Capacity, ClusterView, LoadSample, Role, Standing
from tests.cluster_fakes import member, small_view, view

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def _job(number: int, name: str = "fit.py") -> JobStatus:
    document: dict[str, Any] = {
        "id": f"{number:017}",
        "name": name,
        "state": "running",
        "qos": "batch",
        "attempt": 1,
        "executor": "b",
        "submitted": "2026-05-04T11:58:20.000Z",
    }
    return JobStatus.from_document(document)


def _shown(seen: ClusterView, jobs: Sequence[JobStatus] = (), height: int | None = None, width: int = 100) -> list[str]:
    return drawn(frame(Moment(seen, jobs, NOW, bars=False), height), width, color=False).splitlines()


def test_a_frame_in_full() -> None:
    lines = _shown(small_view(), [_job(1), _job(2)])
    assert lines[0] == "lab  12:00:00 UTC  4 nodes, 1 CSU, 3 of 8 slots free, 3 jobs waiting"
    assert lines[2].split() == ["NODE", "STATE", "LOAD", "SLOTS", "WAITING"]
    assert lines[3].split() == ["a", "alive", "0.25", "###.........", "1/2", "######......", "0"]
    assert lines[4].split() == ["b", "alive", "0.50", "######......", "2/2", "############", "3"]
    assert [line.split()[0] for line in lines[3:8]] == ["a", "b", "c", "d", "e"]
    assert lines[9].split() == ["JOB", "NAME", "STATE", "RAN", "NODE"]
    assert lines[10].split()[1:3] == ["fit.py", "running"]
    assert len(lines) == 12


def test_notices_are_in_the_frame() -> None:
    assert "no other node is known" in _shown(view(member("a")))[1]


@pytest.mark.parametrize("height", [8, 12, 24, 50, 200])
def test_a_large_cluster_fits_the_terminal(height: int) -> None:
    seen = view(*(member(f"n{i:03}") for i in range(100)))
    lines = _shown(seen, [_job(i) for i in range(20)], height) if height > 20 else _shown(seen, (), height)
    assert len(lines) <= height
    shown = [line for line in lines if line.startswith("n")]
    if height < 100:
        assert f"... and {100 - len(shown)} more" in lines
    else:
        assert len(shown) == 100


def test_a_narrow_terminal_has_no_broken_lines() -> None:
    seen = view(*(member("name-that-is-much-longer-than-the-terminal" * 3) for _ in range(3)))
    assert all(len(line) <= 60 for line in _shown(seen, [_job(1)], 24, 60))


def test_a_name_cannot_draw() -> None:
    lines = _shown(view(member("\x1b[2Jx\n"), member("b")), [_job(1, "a\x1b]0;t\x07")], width=200)
    assert not any("\x1b" in line or "\x07" in line for line in lines)


def test_an_empty_cluster_has_a_summary() -> None:
    assert summary(view(member("s", role=Role.CSU)), NOW).endswith("0 nodes, 1 CSU, 0 of 0 slots free, 0 jobs waiting")


@given(st.none() | st.floats(-1, 2), st.booleans(), st.integers(1, 40))
def test_a_bar_has_its_width(share: float | None, blocks: bool, width: int) -> None:
    assert len(bar(share, blocks, width)) == (0 if share is None else width)


def test_bars() -> None:
    assert bar(0.0, True, 4) == "····"
    assert bar(1.0, True, 4) == "████"
    assert bar(0.5, False, 4) == "##.."
    assert bar(0.28125, True, 4) == "█▏··"
    assert len(bar(0.3, True)) == BAR


# history


def _sample(at: float, node: str = "a", *, load: float | None = 0.5, free: int = 1, waiting: int = 0) -> LoadSample:
    return LoadSample(at, node, load, 2, free, waiting)


def test_a_line_per_node() -> None:
    samples = [_sample(100.0 + i, node, free=2 if i < 5 else 0, waiting=i) for i in range(10) for node in ("b", "a")]
    lines = history_rows(samples, 10.0, 10, blocks=False)
    assert [line[0] for line in lines] == ["a", "b"]
    cells = dict(
        zip(("node", "taken", "mean", "max", "load", "load mean", "load max", "waiting"), lines[0], strict=True)
    )
    assert cells["taken"].strip() == "000009999"
    assert (cells["mean"], cells["max"], cells["waiting"]) == ("0.50", "1.00", "9")
    assert (cells["load mean"], cells["load max"]) == ("0.50", "0.50")
    assert len(lines[0]) == len(HISTORY_HEADERS)


def test_what_is_not_known_is_blank_and_not_zero() -> None:
    samples = [_sample(0.0, load=None), _sample(100.0, load=None)]
    assert development(samples, lambda each: each.load, 0.0, 100.0, 4) == [None] * 4
    assert development(samples, lambda each: each.free, 0.0, 100.0, 4) == [1, None, None, 1]
    assert line([1, None, 0, 0.5], blocks=True) == "█ ▁▅"
    (row,) = history_rows(samples, 100.0, 4, blocks=True)
    assert row[4:7] == ("    ", "-", "-")


def test_a_history_of_one_sample_and_of_none() -> None:
    assert history_rows([], 60.0, 10, blocks=True) == []
    ((name, *_rest),) = history_rows([_sample(5.0, "x\x1b[2J")], 60.0, 10, blocks=True)
    assert name == r"x\x1b[2J"


@pytest.mark.parametrize("columns", [20, 80, 100, 300])
def test_the_developments_share_the_terminal(columns: int) -> None:
    width = width_for(columns, ["lab-7"])
    assert 10 <= width <= 60
    assert width == 10 or 2 * width + 5 + 16 + 7 + 14 <= columns


def test_csus_that_can_be_asked() -> None:
    seen = view(
        member("a"),
        member("s", role=Role.CSU, address="10.0.0.9:7009", capacity=Capacity(0, 0)),
        member("t", role=Role.CSU, address="10.0.0.8:7009", standing=Standing.DEAD),
        member("u", role=Role.CSU, address="nonsense"),
    )
    assert [each.text for each in supervisors(seen)] == ["10.0.0.9:7009"]
