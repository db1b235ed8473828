"""Real scripts as real processes: what they are given, what is heard of them, and that nothing of them is left."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from textwrap import indent
from typing import Any, cast

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock as FakeClock

import cloudmytask
from cloudmytask.boundaries import Clock, ExitRecord, Launch, Running, StreamSink, StreamTarget
from cloudmytask.model.job import Limits, Outcome, Reason, StreamName
from cloudmytask.process import ProcessRunner
from cloudmytask.process.group import group_exists
from tests.launching import Written, launch, sinks

MIB = 1024 * 1024
PATIENCE = 60.0
PACKAGE_ROOT = Path(cloudmytask.__file__).parent.parent


@define(eq=False)
class Script:
    """A script that was started, and what it has written."""

    running: Running
    written: dict[StreamName, bytearray]
    _awaited: list[tuple[bytes, Deferred[None]]]
    _reactor: Any

    @property
    def stdout(self) -> str:
        return self.written[StreamName.STDOUT].decode()

    @property
    def stderr(self) -> str:
        return self.written[StreamName.STDERR].decode()

    async def says(self, text: bytes) -> None:
        """Wait until the text is on stdout."""
        if text not in self.written[StreamName.STDOUT]:
            said: Deferred[None] = Deferred()
            self._awaited.append((text, said))
            await said.addTimeout(PATIENCE, self._reactor)

    async def end(self) -> Outcome:
        """How its process ended."""
        return (await self.record()).died

    async def record(self) -> ExitRecord:
        return await self.running.ended.addTimeout(PATIENCE, self._reactor)


@define(eq=False)
class Workshop:
    """Starts scripts in a directory of its own."""

    directory: Path
    reactor: Any
    tag: str
    runners: list[ProcessRunner] = field(factory=list)
    _written: dict[str, Written] = field(factory=dict)
    """Who hears what is written to a spool."""
    _numbers: count[int] = field(factory=lambda: count(1))

    def runner(self, clock: Clock | None = None, **settings: Any) -> ProcessRunner:
        settings.setdefault("inherited", {})
        reactor = cast(IReactorFDSet, self.reactor)
        self.runners.append(ProcessRunner(reactor, clock or self.reactor, self._sink, self.tag, **settings))
        return self.runners[-1]

    def _sink(self, target: StreamTarget) -> StreamSink:
        return sinks(self._written[target.spool])(target)

    def launch(self, text: str = "", **changes: Any) -> Launch:
        plain = {"python": sys.executable, "script_name": "script.py"}
        made = launch(f"job-{next(self._numbers)}", **{**plain, **changes})
        if not (self.directory / made.script_name).exists():
            (self.directory / made.script_name).write_text(textwrap.dedent(text))
        return made

    def start(
        self,
        text: str = "",
        runner: ProcessRunner | None = None,
        write: Written | None = None,
        directory: Path | None = None,
        **changes: Any,
    ) -> Script:
        written = {stream: bytearray() for stream in StreamName}
        awaited: list[tuple[bytes, Deferred[None]]] = []

        def keep(stream: StreamName, data: bytes) -> None:
            written[stream] += data
            for wait in [w for w in awaited if w[0] in written[StreamName.STDOUT]]:
                awaited.remove(wait)
                wait[1].callback(None)

        made = self.launch(text, **changes)
        self._written.update((target.spool, write or keep) for target in made.streams.values())
        running = (runner or self.runner()).start(made, str(directory or self.directory))
        return Script(running, written, awaited, self.reactor)

    async def run(self, text: str = "", **changes: Any) -> tuple[Outcome, Script]:
        script = self.start(text, **changes)
        return await script.end(), script


@pytest.fixture
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    from twisted.internet import reactor

    # Not tmp_path, whose long name leaves no room for sockets of scripts in their TMPDIR.
    directory = tmp_path_factory.mktemp("w") / "work dir's"
    directory.mkdir()
    made = Workshop(directory, reactor, f"{os.getpid()}:{directory}")
    yield made
    made.runner().sweep()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


# How a script ends


@ensureDeferred
@pytest.mark.parametrize("code", [0, 3, 127])
async def test_exit_code(workshop: Workshop, code: int) -> None:
    outcome, script = await workshop.run(f"import sys; print('out'); print('err', file=sys.stderr); sys.exit({code})")
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (Reason.EXIT, code, None)
    assert outcome.success == (code == 0)
    assert (script.stdout, script.stderr) == ("out\n", "err\n")


@ensureDeferred
async def test_death_by_signal(workshop: Workshop) -> None:
    outcome, _ = await workshop.run("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)")
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (Reason.SIGNAL, None, signal.SIGUSR1)


@ensureDeferred
async def test_garbage_is_the_scripts_own_failure(workshop: Workshop) -> None:
    (workshop.directory / "script.py").write_bytes(bytes(range(256)))
    outcome, script = await workshop.run()
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT, 1)
    assert "script.py" in script.stderr


@ensureDeferred
async def test_output_may_be_closed_long_before_the_end(workshop: Workshop) -> None:
    outcome, _ = await workshop.run("import os, sys, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(5)")
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT, 5)


# What a script is given


@ensureDeferred
async def test_stdin_is_the_file(workshop: Workshop) -> None:
    data = workshop.directory / "input"
    data.write_bytes(os.urandom(3 * MIB))
    outcome, script = await workshop.run(
        "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())", stdin="input"
    )
    assert outcome.success
    assert script.stdout.strip() == hashlib.sha256(data.read_bytes()).hexdigest()


@ensureDeferred
async def test_stdin_is_read_only_and_empty_without_a_file(workshop: Workshop) -> None:
    (workshop.directory / "input").write_bytes(b"kept")
    attempt = "import os\ntry: os.write(0, b'x')\nexcept OSError as e: print(e.errno, os.read(0, 9))"
    _, script = await workshop.run(attempt, stdin="input")
    assert script.stdout == f"{errno.EBADF} b'kept'\n"
    _, script = await workshop.run(attempt)
    assert script.stdout == f"{errno.EBADF} b''\n"


@ensureDeferred
@pytest.mark.parametrize(
    "arguments",
    [
        (
            "a b",
            "",
            "it's",
            '"',
            "line\nline",
            "$(touch x)",
            "`touch x`",
            "\\",
            "*",
            "-c",
            "--",
            "ä€😀",
            "; exit 9",
            "$1",
        ),
        tuple(str(n) for n in range(10_000)),
    ],
    ids=["peculiar", "10,000"],
)
async def test_arguments_arrive_unchanged(workshop: Workshop, arguments: tuple[str, ...]) -> None:
    outcome, script = await workshop.run("import json, sys; print(json.dumps(sys.argv))", arguments=arguments)
    assert outcome.success
    assert json.loads(script.stdout) == ["script.py", *arguments]
    assert [entry.name for entry in workshop.directory.iterdir()] == ["script.py"]


@ensureDeferred
@pytest.mark.parametrize("name", ["-c", "-x.py", "a b.py", "$(x).py"])
async def test_script_names_are_no_options_and_no_shell_code(workshop: Workshop, name: str) -> None:
    outcome, script = await workshop.run("import sys; print(sys.argv[0])", script_name=name)
    assert outcome.success
    assert script.stdout == ("./" if name.startswith("-") else "") + name + "\n"


PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def environment_of(script: Script) -> dict[str, str]:
    # where sh is bash, it exports these two whatever one does
    return {name: value for name, value in json.loads(script.stdout).items() if name not in ("_", "SHLVL")}


@ensureDeferred
async def test_environment_is_built_from_nothing(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the daemon")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    _, script = await workshop.run(PRINT_ENVIRONMENT, variables={"CMT_JOB_ID": "job", "SPACED": "a  b\nc"})
    directory = str(workshop.directory)
    assert environment_of(script) == {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": directory,
        "TMPDIR": directory,
        "LANG": "C.UTF-8",
        "CMT_STATE_TAG": workshop.tag,
        "CMT_JOB_ID": "job",
        "SPACED": "a  b\nc",
    }


@ensureDeferred
async def test_locale_and_time_zone_are_the_daemons(workshop: Workshop) -> None:
    inherited = {"LANG": "C.utf8", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "EDITOR": "ed", "PYTHONSTARTUP": "x"}
    _, script = await workshop.run(PRINT_ENVIRONMENT, runner=workshop.runner(inherited=inherited))
    environment = environment_of(script)
    assert {name: environment.get(name) for name in inherited} == {
        "LANG": "C.utf8",
        "LC_ALL": "C.UTF-8",
        "TZ": "Asia/Tokyo",
        "EDITOR": None,
        "PYTHONSTARTUP": None,
    }


@ensureDeferred
async def test_variables_that_a_shell_would_drop_arrive(workshop: Workshop) -> None:
    peculiar = {"a-b": "1", "PWD": "/x", "IFS": "q", "OPTIND": "7", "ü": "$(x)"}
    _, script = await workshop.run(PRINT_ENVIRONMENT, variables=peculiar)
    environment = environment_of(script)
    assert {name: environment.get(name) for name in peculiar} == peculiar


@ensureDeferred
async def test_working_directory_and_interpreter(workshop: Workshop) -> None:
    _, script = await workshop.run(
        """
        import os, sys
        print(os.getcwd(), sys.executable, sys.flags.no_user_site, sys.stdout.line_buffering, sep="\\n")
        """
    )
    assert script.stdout.splitlines() == [str(workshop.directory), sys.executable, "1", "True"]


PRINT_DESCRIPTORS = """
    import os
    def is_open(fd):
        try: os.fstat(fd)
        except OSError: return False
        return True
    print([fd for fd in range(1024) if is_open(fd)])
"""


@ensureDeferred
async def test_no_descriptor_leaks_into_a_script(workshop: Workshop) -> None:
    ends = os.pipe()
    try:
        os.set_inheritable(ends[1], True)
        _, script = await workshop.run(PRINT_DESCRIPTORS)
    finally:
        for end in ends:
            os.close(end)
    assert script.stdout == "[0, 1, 2]\n"


@ensureDeferred
async def test_no_descriptor_leaks_where_close_range_is_missing(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudmytask.process.spawn._close_range", None)
    monkeypatch.delattr(os, "POSIX_SPAWN_CLOSEFROM", raising=False)
    ends = os.pipe()
    try:
        os.set_inheritable(ends[1], True)
        _, script = await workshop.run(PRINT_DESCRIPTORS)
    finally:
        for end in ends:
            os.close(end)
    assert script.stdout == "[0, 1, 2]\n"


@ensureDeferred
async def test_no_descriptor_is_kept_by_us(workshop: Workshop) -> None:
    await workshop.run("pass")
    before = open_descriptors()
    for _ in range(3):
        await workshop.run("print('x')")
        await workshop.run(arguments=("x" * 200_000,))
        await workshop.run(stdin="nowhere")
    assert open_descriptors() == before


@ensureDeferred
async def test_script_leads_a_session_of_its_own(workshop: Workshop) -> None:
    _, script = await workshop.run("import os; print(os.getpid(), os.getsid(0), os.getpgid(0), os.getppid())")
    pid, session, group, parent = map(int, script.stdout.split())
    assert pid == session == group != os.getsid(0)
    assert parent == os.getpid()


@ensureDeferred
async def test_signals_are_at_their_defaults(workshop: Workshop) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        _, script = await workshop.run(
            "import signal; print(signal.getsignal(signal.SIGHUP).name, signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        )
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert script.stdout == "SIG_DFL set()\n"


# Limits


@ensureDeferred
async def test_limits_are_set(workshop: Workshop) -> None:
    limits = Limits(cpu_seconds=7, address_space=512 * MIB + 1, file_size=1000, open_files=64)
    _, script = await workshop.run(
        "import resource as r; print([r.getrlimit(x) for x in "
        "(r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE)])",
        limits=limits,
    )
    space = 512 * MIB + 1024
    assert script.stdout == f"{[(0, 0), (7, 12), (space, space), (1024, 1024), (64, 64)]}\n"


@ensureDeferred
async def test_without_limits_only_core_dumps_are_off(workshop: Workshop) -> None:
    _, script = await workshop.run(
        "import resource as r; print([r.getrlimit(x) for x in (r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_AS)])"
    )
    ours = [resource.getrlimit(which) for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS)]
    assert script.stdout == f"{[(0, 0), *ours]}\n"


@ensureDeferred
async def test_cpu_limit(workshop: Workshop) -> None:
    outcome, _ = await workshop.run("while True: pass", limits=Limits(cpu_seconds=1))
    assert (outcome.reason, outcome.signal) == (Reason.SIGNAL, signal.SIGXCPU)
    assert outcome.usage.cpu_seconds is not None and 0.9 < outcome.usage.cpu_seconds < 3


@ensureDeferred
@pytest.mark.parametrize(
    ("limits", "text", "error"),
    [
        (Limits(address_space=512 * MIB), "bytearray(1 << 30)", "MemoryError"),
        (Limits(file_size=MIB), "f = open('big', 'wb', 0); f.write(bytes(1 << 20)); f.write(b'x')", "Errno 27"),
        (Limits(open_files=20), "held = [open('script.py') for _ in range(20)]", "Errno 24"),
    ],
    ids=["address space", "file size", "open files"],
)
async def test_limits_hold(workshop: Workshop, limits: Limits, text: str, error: str) -> None:
    outcome, script = await workshop.run(text, limits=limits)
    assert (outcome.reason, outcome.exit_code) == (Reason.EXIT, 1)
    assert error in script.stderr


# Output


@ensureDeferred
async def test_much_output_arrives_whole_and_is_not_gathered(workshop: Workshop) -> None:
    digests = {stream: hashlib.sha256() for stream in StreamName}
    sizes = dict.fromkeys(StreamName, 0)
    largest = 0

    def write(stream: StreamName, data: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        digests[stream].update(data)
        sizes[stream] += len(data)

    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the high-water mark starts again from here
    before = status_bytes("VmRSS")
    outcome, _ = await workshop.run(
        """
        import hashlib, random, sys
        digest, block = hashlib.sha256(), random.randbytes(100_000)
        for n in range(500):
            piece = n.to_bytes(4, "big") + block
            digest.update(piece)
            sys.stdout.buffer.write(piece)
        sys.stderr.write(digest.hexdigest())
        """,
        write=write,
    )
    assert outcome.success
    assert sizes == {StreamName.STDOUT: 500 * 100_004, StreamName.STDERR: 64}
    assert (
        digests[StreamName.STDERR].digest() == hashlib.sha256(digests[StreamName.STDOUT].hexdigest().encode()).digest()
    )
    assert largest <= 64 * 1024
    assert status_bytes("VmHWM") - before < 16 * MIB


@ensureDeferred
async def test_a_script_waits_while_its_output_cannot_be_taken(workshop: Workshop) -> None:
    full: Deferred[None] = Deferred()
    taken: list[int] = []

    def write(_stream: StreamName, data: bytes) -> Deferred[None] | None:
        taken.append(len(data))
        return full if not full.called else None

    flood = workshop.start("import os\nfor _ in range(100): os.write(1, bytes(65536))", write=write)
    # another script comes and goes meanwhile
    outcome, _ = await workshop.run("print('here')")
    assert outcome.success
    before = len(taken)
    full.callback(None)
    assert (await flood.end()).success
    assert before <= 1
    assert sum(taken) == 100 * 65536


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@ensureDeferred
async def test_a_flood_does_not_keep_others_waiting(workshop: Workshop) -> None:
    flood = workshop.start(
        "import os\nwhile True: os.write(1, bytes(65536))", script_name="flood.py", write=lambda _stream, _data: None
    )
    outcome, script = await workshop.run("print('here')")
    assert outcome.success and script.stdout == "here\n"
    flood.running.kill()
    assert (await flood.end()).signal == signal.SIGKILL


# The end


@ensureDeferred
async def test_terminate_reaches_the_whole_group(workshop: Workshop) -> None:
    script = workshop.start(
        """
        import signal, subprocess
        child = subprocess.Popen(["sleep", "60"])
        signal.signal(signal.SIGTERM, lambda *_: None)
        print("ready", flush=True)
        print("child ended by", -child.wait())
        """
    )
    await script.says(b"ready")
    script.running.stop(Reason.CANCELLED)
    assert (await script.end()).success
    assert f"child ended by {signal.SIGTERM:d}" in script.stdout


@ensureDeferred
async def test_a_script_that_ignores_sigterm_is_killed(workshop: Workshop) -> None:
    script = workshop.start(
        """
        import os, signal, time
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no\\n"))  # it may interrupt the print
        print("ready", flush=True)
        while True: time.sleep(60)
        """
    )
    await script.says(b"ready")
    script.running.stop(Reason.CANCELLED)
    script.running.stop(Reason.CANCELLED)
    await script.says(b"no")
    assert not script.running.ended.called
    script.running.kill()
    script.running.kill()
    outcome = await script.end()
    assert (outcome.reason, outcome.signal) == (Reason.SIGNAL, signal.SIGKILL)


IGNORES_SIGTERM = """
    import os, signal, time
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no\\n"))
    print("ready", flush=True)
    while True: time.sleep(60)
"""


@ensureDeferred
async def test_a_script_whose_time_is_over_is_stopped_and_killed_after_its_grace(workshop: Workshop) -> None:
    clock: Any = FakeClock()
    script = workshop.start(IGNORES_SIGTERM, runner=workshop.runner(clock=clock), deadline=5.0, kill_grace=2.0)
    await script.says(b"ready")
    clock.advance(4.9)
    assert script.stdout == "ready\n"
    clock.advance(0.1)
    await script.says(b"no")
    clock.advance(1.9)
    assert script.running.stopped_for is Reason.TIMEOUT and not script.running.ended.called
    clock.advance(0.1)
    record = await script.record()
    assert (record.died.reason, record.died.signal, record.stopped_for) == (
        Reason.SIGNAL,
        signal.SIGKILL,
        Reason.TIMEOUT,
    )
    assert (record.outcome.reason, record.outcome.signal) == (Reason.TIMEOUT, signal.SIGKILL)
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_a_script_that_ends_in_time_leaves_no_timer(workshop: Workshop) -> None:
    clock: Any = FakeClock()
    script = workshop.start("pass", runner=workshop.runner(clock=clock), deadline=5.0)
    record = await script.record()
    assert record.stopped_for is None and record.outcome.success and record.discarded == {}
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_a_script_waits_while_its_output_cannot_be_taken_in(workshop: Workshop) -> None:
    full: Deferred[None] = Deferred()
    arrived: list[int] = []

    def write(_stream: StreamName, data: bytes) -> Deferred[None] | None:
        arrived.append(len(data))
        return full if len(arrived) == 1 else None

    script = workshop.start("import os\nfor _ in range(64): os.write(1, bytes(65536))", write=write)
    while not arrived:
        await turn(workshop.reactor)
    for _ in range(20):
        await turn(workshop.reactor)
    assert len(arrived) == 1 and not script.running.ended.called
    full.callback(None)
    assert (await script.end()).success and sum(arrived) == 64 * 65536


@ensureDeferred
async def test_calls_after_the_end_do_nothing(workshop: Workshop) -> None:
    outcome, script = await workshop.run("pass")
    script.running.stop(Reason.CANCELLED)
    script.running.kill()
    assert outcome.success


@ensureDeferred
async def test_a_burst_of_children_is_gone_with_the_script(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """
        import os, signal
        pids = [os.getpid()]
        for _ in range(200):
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True: signal.pause()
            pids.append(pid)
        print(*pids, flush=True)
        os._exit(0)
        """
    )
    pids = [int(pid) for pid in script.stdout.split()]
    assert outcome.success and len(pids) == 201
    assert not [pid for pid in pids if alive(pid)]


@ensureDeferred
@pytest.mark.parametrize("how", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
async def test_a_grandchild_that_holds_the_output_dies_with_the_script(workshop: Workshop, how: str) -> None:
    # the grace is longer than the test may take: only the death of the grandchild closes the pipe in time
    outcome, script = await workshop.run(
        f"import os, subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); {how}",
        runner=workshop.runner(exit_grace=2 * PATIENCE),
    )
    assert outcome.reason in (Reason.EXIT, Reason.SIGNAL)
    assert not alive(int(script.stdout))


@ensureDeferred
async def test_a_daemon_that_holds_the_output_does_not_delay_the_end(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """
        import os, subprocess, sys
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        os.write(2, b"e" * 60_000)
        print(os.getpid(), daemon.pid, flush=True)
        """,
        runner=workshop.runner(exit_grace=0.0),
    )
    assert outcome.success
    leader, daemon = map(int, script.stdout.split())
    assert script.stderr == "e" * 60_000
    assert not group_exists(leader)
    assert alive(daemon), "what left the group is not ours to kill before the next sweep"
    assert workshop.runner().sweep() == 1
    assert not alive(daemon)


@ensureDeferred
async def test_the_grace_lets_a_daemon_finish_its_output(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """
        import os
        leader, (ready, tell) = os.getpid(), os.pipe()
        if not os.fork():
            os.setsid()
            os.write(1, b"first ")
            os.close(tell)
            while os.getppid() == leader: pass
            os.write(1, b"last")
            os._exit(0)
        os.close(tell)
        os.read(ready, 1)
        """,
        runner=workshop.runner(exit_grace=2 * PATIENCE),
    )
    assert outcome.success
    assert script.stdout == "first last"


@ensureDeferred
async def test_the_grace_is_measured_by_the_clock_given(workshop: Workshop) -> None:
    clock: Any = FakeClock()
    script = workshop.start(
        "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)",
        runner=workshop.runner(clock=clock, exit_grace=5.0),
    )
    await script.says(b"\n")
    while not any(call.getTime() == 5.0 for call in clock.getDelayedCalls()):
        await turn(workshop.reactor)
    clock.advance(4.9)
    await turn(workshop.reactor)
    assert not script.running.ended.called
    clock.advance(0.1)
    outcome = await script.end()
    assert outcome.success and outcome.usage.wall_seconds == 0.0
    assert clock.getDelayedCalls() == []


async def turn(reactor: Any) -> None:
    """Let the reactor go round once."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    await done


@ensureDeferred
async def test_an_exit_status_taken_by_somebody_else_is_no_hang(
    workshop: Workshop, expected_failures: Callable[..., object]
) -> None:
    script = workshop.start("import os, signal; print(os.getpid(), flush=True); signal.pause()")
    await script.says(b"\n")
    pid = int(script.stdout)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    outcome = await script.end()
    assert outcome.reason is Reason.LAUNCH and "exit status" in outcome.detail
    expected_failures()


ELSEWHERE = """
import os, sys, threading
from twisted.internet import reactor
from cloudmytask.boundaries import Launch, StreamTarget
from cloudmytask.model.job import AttemptId, StreamName
from cloudmytask.process import ProcessRunner
written = {{stream: b"" for stream in StreamName}}
class Sink:
    discarded = 0
    def __init__(self, target):
        self.stream = StreamName(target.spool)
    def write(self, data):
        written[self.stream] += data
def start():
{before}
    runner = ProcessRunner(reactor, reactor, Sink, {tag!r})
    launch = Launch(
        id=AttemptId("job", 1, 1), client="ann", python=sys.executable, files={{}}, script_name="script.py",
        streams={{stream: StreamTarget(stream.value, 1 << 20) for stream in StreamName}}, kill_grace=10.0,
    )
    ended = runner.start(launch, {directory!r}).ended.addCallback(print)
    ended.addBoth(lambda _: print(written)).addBoth(lambda _: reactor.stop())
reactor.callWhenRunning(start)
"""
"""A program that starts a script, and prints its outcome and what it wrote."""

IN_A_THREAD = """
thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("before", "run"), [("pass", IN_A_THREAD), ("os.close(0); os.close(2)", "reactor.run()")], ids=["thread", "closed"]
)
def test_other_surroundings(workshop: Workshop, before: str, run: str) -> None:
    """A reactor outside the main thread, as that of an embedded node; and a daemon without standard streams."""
    workshop.launch("import os, sys; print(repr(sys.stdin.read())); print('err', file=sys.stderr); os.fstat(1)")
    program = ELSEWHERE.format(before=indent(before, "    "), tag=workshop.tag, directory=str(workshop.directory)) + run
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    outcome, written = done.stdout.splitlines()
    assert "exit_code=0" in outcome, done.stdout + done.stderr
    assert written == str({StreamName.STDOUT: b"''\n", StreamName.STDERR: b"err\n"})


# capset(2): without these, even root may not enter a directory that nobody may enter
WITHOUT_PRIVILEGE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
capabilities = (ctypes.c_uint32 * 6)()
assert libc.capget(header, capabilities) == 0
for word in (0, 1):
    capabilities[word] &= ~(1 << 1 | 1 << 2)
assert libc.capset(header, capabilities) == 0
"""


def test_a_current_directory_that_may_not_be_entered(workshop: Workshop, tmp_path: Path) -> None:
    """As where a daemon was started by another user; scripts run nevertheless, and the node stays where it is."""
    closed = tmp_path / "closed"
    closed.mkdir()
    workshop.launch("import os; print(os.getcwd())")
    before = f"os.chdir({str(closed)!r}); os.chmod('.', 0)\n{WITHOUT_PRIVILEGE}\nassert not os.access('.', os.X_OK)"
    program = ELSEWHERE.format(before=indent(before, "    "), tag=workshop.tag, directory=str(workshop.directory))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program + "reactor.run()\nassert os.getcwd() == " + repr(str(closed))],
            cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
    finally:
        closed.chmod(0o700)
    outcome, written = done.stdout.splitlines()
    assert "exit_code=0" in outcome, done.stdout + done.stderr
    assert written == str({StreamName.STDOUT: f"{workshop.directory}\n".encode(), StreamName.STDERR: b""})


# What it used


@ensureDeferred
async def test_usage_of_a_spin(workshop: Workshop) -> None:
    outcome, _ = await workshop.run("import time\nwhile time.process_time() < 0.3: pass")
    usage = outcome.usage
    assert usage.cpu_seconds is not None and usage.wall_seconds is not None
    assert 0.3 <= usage.cpu_seconds < 3
    assert usage.wall_seconds > 0.1


@ensureDeferred
async def test_usage_covers_the_children_waited_for(workshop: Workshop) -> None:
    spin = "import time\\nwhile time.process_time() < 0.3: pass"
    outcome, _ = await workshop.run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{spin}'])")
    assert outcome.usage.cpu_seconds is not None and outcome.usage.cpu_seconds >= 0.3


@ensureDeferred
async def test_peak_memory_above_our_own(workshop: Workshop) -> None:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 100 * MIB
    outcome, _ = await workshop.run(f"bytearray({size})")
    peak = outcome.usage.peak_memory
    assert peak is not None and size < peak < size + 100 * MIB


@ensureDeferred
async def test_peak_memory_below_our_own_is_sampled(workshop: Workshop) -> None:
    bytearray(200 * MIB)
    clock: Any = FakeClock()
    script = workshop.start(
        "held = bytearray(60 << 20); print('ready', flush=True); import signal; signal.pause()",
        runner=workshop.runner(clock=clock),
    )
    await script.says(b"ready")
    clock.advance(0.1)
    script.running.kill()
    peak = (await script.end()).usage.peak_memory
    assert peak is not None and 60 * MIB < peak < 150 * MIB
    assert clock.getDelayedCalls() == [], "nothing is scheduled while nothing runs"


@ensureDeferred
async def test_peak_memory_grows_with_later_samples(workshop: Workshop) -> None:
    bytearray(200 * MIB)
    clock: Any = FakeClock()
    script = workshop.start(
        """
        import os, signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print(os.getpid(), flush=True); signal.sigwait({signal.SIGUSR1})
        held = bytearray(60 << 20)
        print("grown", flush=True); signal.pause()
        """,
        runner=workshop.runner(clock=clock),
    )
    await script.says(b"\n")
    clock.advance(0.1)
    os.kill(int(script.stdout), signal.SIGUSR1)
    await script.says(b"grown")
    clock.advance(0.9)
    script.running.kill()
    peak = (await script.end()).usage.peak_memory
    assert peak is not None and peak > 60 * MIB


@ensureDeferred
async def test_peak_memory_that_nobody_saw_is_unknown(workshop: Workshop) -> None:
    bytearray(200 * MIB)
    outcome, _ = await workshop.run("pass", runner=workshop.runner(clock=cast(Clock, FakeClock())))
    assert outcome.usage.peak_memory is None


# Launches that fail


def failed(script: Script) -> str:
    """The sentence of a launch that has failed before ``start`` returned."""
    seen: list[Outcome] = []
    script.running.ended.addCallback(lambda record: seen.append(record.died))
    assert len(seen) == 1
    assert seen[0].reason is Reason.LAUNCH and seen[0].exit_code is None and seen[0].signal is None
    assert not script.stdout and not script.stderr
    script.running.stop(Reason.CANCELLED)
    script.running.kill()
    return seen[0].detail


def test_an_interpreter_that_is_missing(workshop: Workshop) -> None:
    script = workshop.start(python="/nowhere/python")
    assert failed(script) == "The interpreter /nowhere/python is not there or not executable."


@ensureDeferred
async def test_an_interpreter_that_cannot_be_executed(workshop: Workshop, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/nowhere/python\n")
    interpreter.chmod(0o755)
    outcome, _ = await workshop.run(python=str(interpreter))
    assert outcome.reason is Reason.LAUNCH and "interpreter" in outcome.detail


@ensureDeferred
async def test_a_script_may_exit_like_the_shell(workshop: Workshop) -> None:
    for code in (121, 122, 126, 127):
        outcome, _ = await workshop.run("import sys; sys.exit(int(sys.argv[1]))", arguments=(str(code),))
        assert (outcome.reason, outcome.exit_code) == (Reason.EXIT, code)


@ensureDeferred
@pytest.mark.parametrize("limits", [Limits(), Limits(open_files=64)], ids=["no limits", "limits"])
async def test_a_script_may_become_a_shell_that_exits_like_ours(workshop: Workshop, limits: Limits) -> None:
    for code in (121, 122, 126, 127):
        outcome, _ = await workshop.run(
            "import os, sys; os.execv('/bin/sh', ['sh', '-c', 'exit ' + sys.argv[1]])",
            arguments=(str(code),),
            limits=limits,
        )
        assert (outcome.reason, outcome.exit_code) == (Reason.EXIT, code)


@ensureDeferred
@pytest.mark.parametrize("environment", [{}, {"PWD": "/"}], ids=["plain", "peculiar variables"])
async def test_what_our_shell_cannot_execute_is_a_launch_that_failed(
    workshop: Workshop, tmp_path: Path, environment: dict[str, str]
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/nowhere/python\n")
    interpreter.chmod(0o755)
    outcome, _ = await workshop.run(python=str(interpreter), limits=Limits(open_files=64), variables=environment)
    assert outcome.reason is Reason.LAUNCH and "interpreter" in outcome.detail


def test_a_directory_that_is_missing(workshop: Workshop, tmp_path: Path) -> None:
    assert "is not there" in failed(workshop.start(directory=tmp_path / "none"))


@ensureDeferred
async def test_a_directory_that_vanishes_at_the_last_moment(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessRunner, "_check", lambda *_: None)
    outcome, _ = await workshop.run(directory=tmp_path / "none")
    assert outcome.reason is Reason.LAUNCH and "directory" in outcome.detail


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"arguments": ("x" * 200_000,)}, "longer than the system allows"),
        ({"arguments": ("a\0b",)}, "NUL"),
        ({"arguments": ("\ud800",)}, "Unicode"),
        ({"variables": {"a=b": "c"}}, "'a=b'"),
        ({"variables": {"A": "b\0"}}, "NUL"),
        ({"stdin": "nowhere/input"}, "/nowhere/input"),
    ],
    ids=["too long", "NUL", "surrogate", "variable name", "variable value", "stdin"],
)
def test_a_launch_that_no_process_can_be_made_of(workshop: Workshop, changes: Mapping[str, Any], part: str) -> None:
    assert part in failed(workshop.start(**changes))


@ensureDeferred
async def test_no_descriptors_left(workshop: Workshop) -> None:
    runner = workshop.runner()
    assert (await workshop.run("pass", runner=runner))[0].success
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in before)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        for free in range(6):
            # each time there is one more, and it runs out one step later
            assert "Too many open files" in failed(workshop.start(runner=runner)), free
            os.close(taken.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    assert open_descriptors() == before
    outcome, _ = await workshop.run("pass", runner=runner)
    assert outcome.success


# Sweeping up after an earlier life


def test_sweep_kills_what_carries_the_tag_and_nothing_else(workshop: Workshop) -> None:
    def start(tag: str, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env={"CMT_STATE_TAG": tag, "PATH": os.defpath}, stdout=subprocess.PIPE)

    daemonize = "import os, subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    orphan = start(workshop.tag, ["sleep", "600"])
    stranger = start(workshop.tag + "x", ["sleep", "600"])
    parent = start(workshop.tag, [sys.executable, "-c", daemonize])
    try:
        assert parent.stdout is not None
        daemon = int(parent.stdout.readline())
        parent.wait()
        assert alive(daemon)
        assert workshop.runner().sweep() == 2
        assert not alive(daemon)
        assert orphan.poll() == -signal.SIGKILL
        assert stranger.poll() is None
        assert workshop.runner().sweep() == 0
    finally:
        for process in (orphan, stranger, parent):
            process.kill()
            process.communicate()


def test_sweep_spares_the_process_that_sweeps(workshop: Workshop) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from cloudmytask.process.sweep import sweep; print(sweep({workshop.tag!r}))"],
        cwd=PACKAGE_ROOT,
        env={"CMT_STATE_TAG": workshop.tag},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "0\n"
