"""From a launch to the program that is executed: its argument vector and its environment.

Invariant: pure. Every value travels as an argument of its own; the shell text is one constant, so no value is
ever read as shell code. The environment is built from nothing, never by taking things away from the daemon's.

A launch without limits is the interpreter itself, started in the work directory. Where there are limits, or where a
process cannot be started in another directory than ours, one ``/bin/sh`` stands in between, which changes directory,
sets them and executes the interpreter in its own place (same pid). It is the cheapest way there, half a millisecond:
``posix_spawn`` sets no limits, and a prelude in Python would pay for a second interpreter start.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from attrs import frozen

from cloudmytask.boundaries import Launch
from cloudmytask.model.job import Limits, Resource

SHELL = "/bin/sh"
ENV = "/usr/bin/env"
SHELL_NAME = "cmt-launch"
"""What our shell calls itself (proc(5), ``comm``), so that it is not taken for one that a script has become."""
STATE_TAG = "CMT_STATE_TAG"
"""The environment variable by which a later life of the node finds what an earlier one left running."""

STARTUP = str(Path(__file__).parent / "startup")
"""The directory that every interpreter finds first: its ``sitecustomize`` makes standard output line-buffered."""

NO_LIMITS = Limits()

CPU_KILL_MARGIN = 5
"""CPU seconds between SIGXCPU, which a script may handle, and SIGKILL."""

DIRECTORY_FAILED = 121
LIMITS_FAILED = 122
SHELL_FAILURES: Mapping[int, str] = {
    DIRECTORY_FAILED: "The work directory could not be entered.",
    LIMITS_FAILED: "The limits could not be set.",
    126: "The interpreter could not be executed.",
    127: "The interpreter was not found.",
}
"""What it means when the shell itself, not the script, exits with one of these (126, 127: POSIX, sh, EXIT STATUS)."""

SHELL_TEXT = f"""\
{{ echo {SHELL_NAME} > /proc/self/comm; }} 2> /dev/null
cd -- "$1" || exit {DIRECTORY_FAILED}
ulimit -c 0 || exit {LIMITS_FAILED}
[ -z "$2" ] || {{ ulimit -S -t "$2" && ulimit -H -t "$3"; }} || exit {LIMITS_FAILED}
[ -z "$4" ] || ulimit -v "$4" || exit {LIMITS_FAILED}
[ -z "$5" ] || ulimit -f "$5" || exit {LIMITS_FAILED}
[ -z "$6" ] || ulimit -n "$6" || exit {LIMITS_FAILED}
shift 6
unset PWD OLDPWD SHLVL
exec "$@"
"""
"""``cd`` and the shell's start export variables that nobody asked for: they are unset again.
``ulimit`` counts address space in KiB and file sizes in blocks of 512 bytes (POSIX, ulimit)."""

_SHELLS_OWN_VARIABLES = frozenset({"IFS", "LINENO", "OLDPWD", "OPTIND", "PPID", "PWD", "SHLVL", "_"})
_SHELL_CARRIES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unlaunchable(Exception):
    """The launch cannot become a process; ``str()`` of it is one sentence for a person.

    ``short``: what the node lacks, if that is why.
    """

    def __init__(self, sentence: str, short: Resource | None = None) -> None:
        super().__init__(sentence)
        self.short = short


@frozen
class Program:
    """What ``execve(2)`` is given."""

    arguments: list[bytes]
    """The first is the absolute path of the file to execute."""
    environment: Mapping[bytes, bytes]
    directory: str | None = None
    """Where it is to be started; None if it goes to its directory by itself."""
    launchers: frozenset[str] = frozenset()
    """What the process may be called (proc(5), ``comm``) until it has become the interpreter; empty if it is that from
    the beginning."""


@frozen
class ProgramMaker:
    """Makes programs that run scripts.

    :ivar tag: value of the :data:`STATE_TAG` variable.
    :ivar inherited: the daemon's own environment, of which only the locale and the time zone are passed on.
    :ivar hard_limit: a resource's hard limit in this process, in the units of :func:`resource.getrlimit`.
    """

    tag: str
    inherited: Mapping[str, str]
    hard_limit: Callable[[int], int] = lambda which: resource.getrlimit(which)[1]

    def __call__(self, launch: Launch, directory: str, *, elsewhere: bool = True) -> Program:
        """The command line that starts ``launch``.

        :param directory: absolute path of the work directory.
        :param elsewhere: whether it can be started in another directory than ours.
        :raises Unlaunchable: an argument or a variable is nothing that a process can be given.
        """
        name = launch.script_name
        script = f"./{name}" if name.startswith("-") else name
        everything = self._environment(launch, directory)
        if elsewhere and launch.limits == NO_LIMITS:
            command = [launch.python, "-s", script, *launch.arguments]
            return Program(_encoded(command), _encoded_variables(everything), directory)
        plain, peculiar = _split(everything)
        return Program(
            [
                *_encoded([SHELL, "-c", SHELL_TEXT, SHELL_NAME, directory, *self._limits(launch.limits)]),
                # env(1) carries what would not pass through a shell unchanged; hardly any job needs it
                *_encoded([ENV, "--", *(f"{k}={v}" for k, v in peculiar.items())] if peculiar else []),
                *_encoded([launch.python, "-s", script]),
                *_encoded(launch.arguments),
            ],
            _encoded_variables(plain),
            launchers=frozenset({SHELL_NAME, PurePosixPath(ENV).name} if peculiar else {SHELL_NAME}),
        )

    def _environment(self, launch: Launch, directory: str) -> dict[str, str]:
        everything = {
            "PATH": f"{PurePosixPath(launch.python).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": directory,
            "TMPDIR": directory,
            "LANG": "C.UTF-8",
            **{name: self.inherited[name] for name in ("LANG", "LC_ALL", "TZ") if name in self.inherited},
            **launch.variables,
            STATE_TAG: self.tag,
        }
        theirs = everything.get("PYTHONPATH")
        everything["PYTHONPATH"] = STARTUP if theirs is None else f"{STARTUP}:{theirs}"
        for name in everything:
            if not name or "=" in name:
                raise Unlaunchable(f"The environment variable {name!r} has no valid name.")
        return everything

    def _limits(self, limits: Limits) -> list[str]:
        """The shell's parameters 2 to 6; an empty one sets nothing."""
        cpu = limits.cpu_seconds
        return [
            self._limit(resource.RLIMIT_CPU, cpu),
            self._limit(resource.RLIMIT_CPU, None if cpu is None else cpu + CPU_KILL_MARGIN),
            self._limit(resource.RLIMIT_AS, limits.address_space, 1024),
            self._limit(resource.RLIMIT_FSIZE, limits.file_size, 512),
            self._limit(resource.RLIMIT_NOFILE, limits.open_files),
        ]

    def _limit(self, which: int, wanted: int | None, block: int = 1) -> str:
        """``wanted`` in blocks, rounded up, but never above this process's hard limit: nobody may raise that
        (setrlimit(2)), and it is in force for the script anyway."""
        if wanted is None:
            return ""
        blocks = -(-wanted // block)
        hard = self.hard_limit(which)
        return str(blocks if hard == resource.RLIM_INFINITY else min(blocks, hard // block))


def _split(everything: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that a shell hands on as they are, and the others."""
    plain: dict[str, str] = {}
    peculiar: dict[str, str] = {}
    for name, value in everything.items():
        carried = _SHELL_CARRIES.fullmatch(name) and name not in _SHELLS_OWN_VARIABLES
        (plain if carried else peculiar)[name] = value
    return plain, peculiar


def _encoded_variables(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return dict(zip(_encoded(variables), _encoded(variables.values()), strict=True))


def _encoded(words: Iterable[str]) -> list[bytes]:
    """What was not UTF-8 on its way in (``surrogateescape``) comes out as the same bytes."""
    encoded = []
    for word in words:
        if "\0" in word:
            raise Unlaunchable("An argument or an environment variable contains a NUL character.")
        try:
            encoded.append(word.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise Unlaunchable("An argument or an environment variable is not valid Unicode text.") from error
    return encoded
