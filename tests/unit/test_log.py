"""Log lines: one per event, valid JSON, nothing lost that matters, nothing forged."""

from __future__ import annotations

import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure

from cloudmytask import log
from cloudmytask.log import BURST, RATE, json_line, json_observer, open_log


def lines_of(*events: LogEvent) -> list[dict[str, Any]]:
    text = "".join(map(json_line, events))
    return [json.loads(line) for line in text.splitlines()]


def observed(write: Any, namespace: str = "cloudmytask.test") -> list[dict[str, Any]]:
    stream = io.StringIO()
    write(Logger(namespace, observer=LogPublisher(json_observer(stream))))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_grave_where_and_what() -> None:
    event: LogEvent = {
        "log_time": 1_800_000_000.25,
        "log_level": LogLevel.warn,
        "log_namespace": "cloudmytask.node",
        "log_format": "job {job} has waited {seconds} s",
        "job": "a1",
        "seconds": 3,
    }
    assert lines_of(event) == [
        {
            "time": "2027-01-15T08:00:00.250Z",
            "level": "warn",
            "system": "cloudmytask.node",
            "event": "job a1 has waited 3 s",
            "job": "a1",
            "seconds": 3,
        }
    ]


def test_a_failure_is_one_field_with_the_traceback() -> None:
    def write(logger: Logger) -> None:
        try:
            raise ZeroDivisionError("by\nzero")
        except ZeroDivisionError:
            logger.failure("it broke")

    [line] = observed(write)
    assert (line["level"], line["event"]) == ("critical", "it broke")
    assert "Traceback" in line["failure"]
    assert "by\nzero" in line["failure"]


def test_fields_without_words_in_json_are_left_out_but_stay_in_the_text() -> None:
    circle: list[Any] = []
    circle.append(circle)
    [line] = observed(
        lambda logger: logger.info(
            "{thing} {raw}", thing=object, raw=b"x", circle=circle, nan=math.nan, nested={"a": [1, None]}
        )
    )
    assert line["nested"] == {"a": [1, None]}
    assert not {"thing", "raw", "circle", "nan"} & set(line)
    assert line["event"] == "<class 'object'> b'x'"


def test_an_events_own_fields_never_replace_ours() -> None:
    ours = ("time", "level", "system", "event")
    [line] = lines_of({"log_format": "text", "log_time": 0.0, "other": "kept", **dict.fromkeys(ours, "forged")})
    assert "forged" not in line.values()
    assert line["other"] == "kept"


def test_debug_is_left_out() -> None:
    def write(logger: Logger) -> None:
        logger.debug("quiet")
        logger.info("loud")

    assert [line["event"] for line in observed(write)] == ["loud"]


def test_legacy_events_are_clean() -> None:
    stream = io.StringIO()
    publisher = legacy.LogPublisher(publishPublisher=LogPublisher(json_observer(stream)))
    publisher.msg("old words", system="old", extra=1)
    line = json.loads(stream.getvalue())
    assert set(line) == {"time", "level", "system", "event", "extra"}
    assert (line["system"], line["event"], line["extra"]) == ("old", "old words", 1)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_one_event_is_one_line_of_printable_ascii(text: str, value: str, fields: dict[str, str]) -> None:
    event: LogEvent = {**fields, "log_format": "{text} {value}", "text": text, "value": value, "log_time": 0.0}
    line = json_line(event)
    assert line.endswith("\n")
    assert all(" " <= character <= "~" for character in line[:-1])
    json.loads(line)


def test_an_event_that_cannot_be_formatted_is_still_a_line() -> None:
    [line] = lines_of({"log_format": "{absent}", "log_time": 0.0})
    assert "absent" in line["event"]


def test_a_log_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    for word in ("first", "second"):
        stream = open_log(path)
        Logger("n", observer=LogPublisher(json_observer(stream))).info("{word} é", word=word)
        stream.close()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["first é", "second é"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_file_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.touch(0o644)
    open_log(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ROTATE_AT", 100)
    stream = open_log(tmp_path / "node.log")
    logger = Logger("n", observer=LogPublisher(json_observer(stream)))
    for number in range(20):
        logger.info("x" * 100, number=number)
    stream.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + log.KEPT_FILES
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert json.loads((tmp_path / "node.log").read_text())["number"] == 19


def test_a_pipe_is_neither_rotated_nor_given_a_mode(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    stream = open_log(pipe)
    Logger("n", observer=LogPublisher(json_observer(stream))).info("through")
    assert json.loads(os.read(reader, 4096))["event"] == "through"
    stream.close()
    os.close(reader)
    assert stat.S_IMODE(pipe.stat().st_mode) & 0o044


def _written(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stream = io.StringIO()
    observer = json_observer(stream)
    for event in events:
        observer(event)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _line(text: str, at: float, **more: object) -> dict[str, Any]:
    return {"log_namespace": "net", "log_format": text, "log_level": LogLevel.warn, "log_time": at, **more}


def test_lines_of_one_kind_are_limited_and_the_others_are_not() -> None:
    flood = [_line("dropped: {why}", 1000.0 + number / 1000, why=str(number)) for number in range(2000)]
    written = _written([*flood, _line("another", 1002.0), _line("dropped: {why}", 1010.0, why="late")])
    of_kind = [each for each in written if "dropped" in each["event"]]
    assert BURST <= len(of_kind) <= BURST + 2 * RATE + 1
    assert [each["event"] for each in written[-2:]] == ["another", "dropped: late"]
    assert sum(each.get("left_out", 0) for each in of_kind) == 2000 + 1 - len(of_kind)


def test_a_clock_that_is_set_back_silences_nobody_for_ever() -> None:
    flood = [_line("dropped", 5000.0) for _ in range(BURST + 10)]
    written = _written([*flood, _line("dropped", 10.0), *(_line("dropped", 11.0 + number) for number in range(3))])
    assert len(written) == BURST + 3


def test_a_traceback_is_never_left_out() -> None:
    broken = [_line("broke", 1.0, log_failure=Failure(ValueError("x"))) for _ in range(2 * BURST)]
    assert len(_written(broken)) == 2 * BURST
