"""A script's output is complete, live line by line, and written as plain Python writes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from cloudmytask.model.job import Reason, StreamName
from tests.integration.test_process_runner import Workshop, workshop

__all__ = ["workshop"]

TICKING = """\
    import signal, sys
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
"""
TEXT_UNDER_A_TIMER = (
    TICKING
    + """\
    for _ in range(20):
        print("x" * 999_999)
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
)
BYTES_UNDER_A_TIMER = (
    TICKING
    + """\
    for _ in range(20):
        sys.stdout.buffer.write(b"y" * 1_000_000)
    sys.stdout.flush()
    signal.setitimer(signal.ITIMER_REAL, 0)
"""
)
CHILDREN_THAT_END = """\
    import os, signal
    def reap(*_):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
    signal.signal(signal.SIGCHLD, reap)
    for _ in range(20):
        if os.fork() == 0:
            os._exit(0)
        print("r" * 999_999)
"""


def plainly(workshop: Workshop, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """What plain Python does with the script, into a pipe."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"LC_ALL": "C.UTF-8", **(variables or {})}
    script = workshop.directory / "script.py"
    return subprocess.run([sys.executable, "-s", script], capture_output=True, cwd=workshop.directory, env=environment)


@ensureDeferred
@pytest.mark.parametrize("text", [TEXT_UNDER_A_TIMER, BYTES_UNDER_A_TIMER, CHILDREN_THAT_END])
async def test_nothing_is_lost_while_signals_interrupt_the_writing(workshop: Workshop, text: str) -> None:
    outcome, script = await workshop.run(text)
    assert outcome.success, script.stderr
    assert len(script.written[StreamName.STDOUT]) == 20_000_000


@ensureDeferred
async def test_a_script_learns_that_a_pipe_in_non_blocking_mode_is_full(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """\
        import os, sys
        os.set_blocking(1, False)
        try:
            sys.stdout.write("z" * 5_000_000)
            sys.stdout.flush()
        except BlockingIOError:
            sys.exit(7)
        """
    )
    told = outcome.exit_code in (7, 120)
    assert told or len(script.written[StreamName.STDOUT]) == 5_000_000


@ensureDeferred
async def test_lines_are_live_and_what_is_no_line_waits_for_its_end(workshop: Workshop) -> None:
    script = workshop.start(
        "print('line'); print('half', end=''); input() if False else None\nimport signal; signal.pause()"
    )
    await script.says(b"line\n")
    script.running.stop(Reason.CANCELLED)
    await script.end()
    assert script.stdout == "line\n"


@ensureDeferred
async def test_flushed_output_and_errors_are_live(workshop: Workshop) -> None:
    script = workshop.start(
        """\
        import signal, sys
        print("50 %", end="\\r", flush=True)
        signal.pause()
        """
    )
    await script.says(b"50 %\r")
    script.running.kill()
    await script.end()


@ensureDeferred
async def test_lines_of_pool_workers_are_whole(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """\
        from concurrent.futures import ProcessPoolExecutor
        def work(number):
            for _ in range(200):
                print("worker", number, "a" * 100, sep=",")
        if __name__ == "__main__":
            with ProcessPoolExecutor(4) as pool:
                list(pool.map(work, range(4)))
        """
    )
    assert outcome.success, script.stderr
    lines = script.stdout.splitlines()
    assert len(lines) == 800
    assert set(lines) == {f"worker,{number},{'a' * 100}" for number in range(4)}


@ensureDeferred
async def test_a_print_is_one_write(workshop: Workshop) -> None:
    """300,000 prints took six seconds with two system calls each."""
    outcome, script = await workshop.run(
        """\
        import sys
        writes = []
        raw = sys.stdout.buffer.raw
        class Counted(type(raw)):
            def write(self, data):
                writes.append(bytes(data))
                return super().write(data)
        import io
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(Counted(1, "w", closefd=False)),
                                      line_buffering=sys.stdout.line_buffering,
                                      write_through=sys.stdout.write_through)
        print("row", 1, 2, sep=",")
        assert writes == [b"row,1,2\\n"], writes
        """
    )
    assert outcome.success, script.stderr


@ensureDeferred
async def test_the_streams_are_those_of_plain_python(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """\
        import os, sys
        print([(type(s).__name__, s.encoding, s.errors, s.newlines, type(s.buffer).__name__, s.write_through)
               for s in (sys.stdout, sys.stderr)])
        print(sys.stderr.line_buffering, [p for p in sys.path if "startup" in p], "PYTHONPATH" in os.environ, sys.flags)
        print([p for p in sys.path_importer_cache if "startup" in p], len(sys.argv))
        """
    )
    assert outcome.success, script.stderr
    plain = plainly(workshop)
    assert script.stdout == plain.stdout.decode()


@ensureDeferred
async def test_a_path_of_the_jobs_own_and_a_sitecustomize_there_are_honored(workshop: Workshop, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import sys; sys.their_own = True")
    (theirs / "beside.py").write_text("word = 'found'")
    outcome, script = await workshop.run(
        """\
        import os, sys, beside
        print(beside.word, sys.their_own, os.environ["PYTHONPATH"], sys.stdout.line_buffering)
        """,
        variables={"PYTHONPATH": str(theirs)},
    )
    assert outcome.success, script.stderr
    assert script.stdout == f"found True {theirs} True\n"


@ensureDeferred
async def test_a_closed_standard_output_is_left_alone(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """\
        import os, subprocess, sys
        environment = dict(os.environ, PYTHONPATH=sys.argv[1])
        code = "import sys; sys.exit(0 if sys.stdout is None else 3)"
        print(subprocess.call(["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code], env=environment))
        """,
        arguments=(str(Path(__file__).parents[2] / "cloudmytask/process/startup"),),
    )
    assert (outcome.exit_code, script.stdout) == (0, "0\n"), script.stderr


CHILDREN = """\
    import multiprocessing, os, subprocess, sys, tempfile
    streams = "import sys; print(sys.stdout.line_buffering, sys.path[1:], sys.flags.utf8_mode, sys.stdout.errors)"
    def shown(number):
        print("child", number, sys.stdout.line_buffering, os.environ.get("PYTHONPATH"))
        sys.stdout.flush()
    if __name__ == "__main__":
        for options in ([], ["-X", "utf8"], ["-u"], ["-E"], ["-I"]):
            print(options, subprocess.run([sys.executable, *options, "-c", streams], capture_output=True).stdout)
        tempfile.tempdir = "/tmp"  # a socket's path must be short
        for method in ("spawn", "forkserver"):
            process = multiprocessing.get_context(method).Process(target=shown, args=(method,))
            process.start()
            process.join()
        sys.stdout.buffer.write(b"bytes, ")
        sys.stdout.write("then text\\n")
        print("to be lost, as ever", end="")
        os._exit(3)
"""


@ensureDeferred
async def test_interpreters_that_the_script_starts_are_those_of_plain_python(workshop: Workshop) -> None:
    outcome, script = await workshop.run(CHILDREN, variables={"PYTHONPATH": "/theirs:/more"})
    plain = plainly(workshop, {"PYTHONPATH": "/theirs:/more"})
    assert (outcome.exit_code, plain.returncode) == (3, 3), script.stderr
    assert script.stdout.splitlines()[:-1] == plain.stdout.decode().splitlines()
    assert script.stdout.splitlines()[-1] == "bytes, then text", "a line is out before os._exit; plain Python loses it"


@ensureDeferred
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module has another name")
async def test_a_subinterpreter_leaves_the_jobs_own_path_alone(workshop: Workshop) -> None:
    outcome, script = await workshop.run(
        """\
        import os, _xxsubinterpreters
        code = "import os, sys; print([p for p in sys.path if 'startup' in p], os.environ['PYTHONPATH'])"
        _xxsubinterpreters.run_string(_xxsubinterpreters.create(), code)
        print(os.popen("echo $PYTHONPATH").read(), end="")
        """,
        variables={"PYTHONPATH": "/theirs:/more"},
    )
    assert outcome.success, script.stderr
    assert script.stdout == "[] /theirs:/more\n/theirs:/more\n"


@ensureDeferred
async def test_what_cannot_be_flushed_at_the_end_is_exit_code_120(workshop: Workshop) -> None:
    outcome, script = await workshop.run("import os, sys\nprint('x', end='')\nos.close(1)")
    assert (outcome.exit_code, plainly(workshop).returncode) == (120, 120), script.stderr


@ensureDeferred
async def test_a_fork_does_not_repeat_what_was_printed(workshop: Workshop) -> None:
    outcome, script = await workshop.run("import os\nprint('once')\nif os.fork():\n    os.wait()")
    assert (outcome.success, script.stdout) == (True, "once\n"), "plain Python writes it twice into a pipe"
