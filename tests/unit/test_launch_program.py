"""From a launch to an argument vector and an environment."""

from __future__ import annotations

import resource

import pytest

from cloudmytask.model.job import Limits
from cloudmytask.process.program import SHELL_TEXT, Program, ProgramMaker, Unlaunchable
from tests.launching import launch

LIMITS_AT = slice(5, 10)
"""Where the limits stand in the argument vector, after the shell, its text and the directory."""


def program(
    limits: Limits | None = None,
    hard: dict[int, int] | None = None,
    arguments: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    name: str = "s.py",
    elsewhere: bool = True,
) -> Program:
    maker = ProgramMaker("tag", {}, lambda which: (hard or {}).get(which, resource.RLIM_INFINITY))
    made = launch(
        script_name=name,
        arguments=arguments,
        variables=environment or {},
        limits=limits or Limits(),
    )
    return maker(made, "/work", elsewhere=elsewhere)


def test_the_shell_text_is_the_same_for_every_launch() -> None:
    some = Limits(cpu_seconds=1)
    odd = program(some, arguments=("$(reboot)",), environment={"A": "`reboot`"}, name="; reboot")
    assert odd.arguments[:3] == program(some).arguments[:3] == [b"/bin/sh", b"-c", SHELL_TEXT.encode()]
    assert odd.directory is None
    assert odd.arguments[LIMITS_AT.stop :] == [b"/venv/bin/python", b"-s", b"; reboot", b"$(reboot)"]


def test_a_limit_that_is_not_asked_for_is_empty() -> None:
    assert program(Limits(open_files=7)).arguments[LIMITS_AT] == [b"", b"", b"", b"", b"7"]


def test_without_limits_there_is_no_shell() -> None:
    made = program(arguments=("$(x)", ""), name="-c")
    assert made.arguments == [b"/venv/bin/python", b"-s", b"./-c", b"$(x)", b""]
    assert made.directory == "/work"
    assert not made.launchers


def test_without_a_way_to_another_directory_the_shell_goes_there() -> None:
    made = program(elsewhere=False)
    assert made.arguments[: LIMITS_AT.stop] == [
        b"/bin/sh",
        b"-c",
        SHELL_TEXT.encode(),
        b"cmt-launch",
        b"/work",
        *[b""] * 5,
    ]
    assert made.directory is None


def test_what_may_be_mistaken_for_the_interpreter_is_known() -> None:
    assert program(Limits(open_files=7)).launchers == {"cmt-launch"}
    assert program(Limits(open_files=7), environment={"PWD": "/"}).launchers == {"cmt-launch", "env"}


def test_limits_are_rounded_up_to_the_shells_units() -> None:
    limits = Limits(cpu_seconds=9, address_space=1025, file_size=513, open_files=7)
    assert program(limits).arguments[LIMITS_AT] == [b"9", b"14", b"2", b"2", b"7"]


def test_limits_above_our_own_are_those_in_force() -> None:
    limits = Limits(cpu_seconds=100, address_space=1 << 40, file_size=1 << 40, open_files=1 << 30)
    hard = {
        resource.RLIMIT_CPU: 103,
        resource.RLIMIT_AS: 4095,
        resource.RLIMIT_FSIZE: 1023,
        resource.RLIMIT_NOFILE: 1024,
    }
    assert program(limits, hard).arguments[LIMITS_AT] == [b"100", b"103", b"3", b"1", b"1024"]


def test_a_job_cannot_take_another_tag() -> None:
    assert program(environment={"CMT_STATE_TAG": "other"}).environment[b"CMT_STATE_TAG"] == b"tag"


def test_a_job_may_set_what_is_set_for_it() -> None:
    assert program(environment={"HOME": "/h"}).environment[b"HOME"] == b"/h"


def test_bytes_that_are_no_text_come_out_as_they_came_in() -> None:
    assert program(arguments=(b"\xff\xe4".decode("utf-8", "surrogateescape"),)).arguments[-1] == b"\xff\xe4"


@pytest.mark.parametrize("environment", [{"": "x"}, {"a=b": "x"}, {"A\0": "x"}, {"A": "\ud800"}])
def test_what_no_process_can_be_given(environment: dict[str, str]) -> None:
    with pytest.raises(Unlaunchable):
        program(environment=environment)
