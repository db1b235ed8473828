"""The blocking client in programs as people write them: threads, forks, exits, and a reactor that was there before."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemons import PATIENCE, environment, node

SOCKETS = """
import os
def sockets():
    names = (f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd"))
    return sum("socket:" in os.readlink(name) for name in names if os.path.islink(name))
"""
"""A program's open sockets; AF_UNIX or not."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("node")
    with node(["-n", "--pidfile=", "cmt-node", "--state", "state", "--load-source", "none"], directory):
        yield f"unix:{directory}/state/node.sock"


def run(program: str, address: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A program in a file of its own, as multiprocessing wants it, to its end."""
    path = directory / "program.py"
    path.write_text(textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, str(path)],
        env=environment({"CMT_NODE": address, "PYTHONPATH": ":".join(sys.path)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_client_that_is_closed_at_exit_does_not_hold_the_program_up(address: str, tmp_path: Path) -> None:
    done = run(
        """
        import atexit
        from cloudmytask import Client
        client = Client()
        def too_late():
            try:
                client.node()
            except RuntimeError as problem:
                print(problem)
        atexit.register(client.close)
        atexit.register(too_late)
        print(client.submit(b"print(1)").result().stdout, end="")
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first == "1"
    assert last.startswith("the client cannot be used any more: ")


@pytest.mark.parametrize("whose", ["its own", "its parent's"])
def test_a_forked_process_is_told_to_start_afresh(address: str, tmp_path: Path, whose: str) -> None:
    done = run(
        f"""
        import os
        from cloudmytask import Client
        client = Client()
        client.node()
        child = os.fork()
        if child == 0:
            try:
                with (Client() if {whose == "its own"} else client) as one:
                    one.node()
            except RuntimeError as problem:
                print(problem, flush=True)
                os._exit(7)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print(client.node()["state"])
        """,
        address,
        tmp_path,
    )
    sentence, code, state = done.stdout.splitlines()
    assert "forked" in sentence and "spawn" in sentence
    assert (code, state, done.returncode, done.stderr) == ("7", "up", 0, "")


@pytest.mark.parametrize(("method", "used"), [("fork", False), ("spawn", True)])
def test_multiprocessing(address: str, tmp_path: Path, method: str, used: bool) -> None:
    """Forked processes may each use a client if their parent has not used one; spawned ones always may."""
    done = run(
        f"""
        import multiprocessing
        from cloudmytask import Client

        def square(number):
            with Client() as client:
                return int(client.submit(b"import sys; print(int(sys.argv[1]) ** 2)", str(number)).result().stdout)

        if __name__ == "__main__":
            if {used}:
                Client().node()
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print(pool.map(square, [2, 3]))
        """,
        address,
        tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[4, 9]\n", "", 0)


def test_threads_share_one_connection(address: str, tmp_path: Path) -> None:
    done = run(
        SOCKETS
        + textwrap.dedent("""
        import threading
        from cloudmytask import Client
        client = Client()
        client.node()
        before = sockets() - 1
        client.close()
        together = threading.Barrier(8)
        def ask():
            together.wait()
            client.node()
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for each in threads: each.start()
        for each in threads: each.join()
        print(sockets() - before)
        """),
        address,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_reactor_of_the_program_is_kept_and_its_end_ends_the_calls(address: str, tmp_path: Path) -> None:
    """A thread of the reactor's own pool waits; the reactor's end waits for that thread."""
    done = run(
        """
        from cloudmytask import Client, reactor as monotonic
        monotonic.install()
        from twisted.internet import reactor, threads
        from cloudmytask.model.errors import ConnectionInterrupted

        client = Client()

        def wait():
            job = client.submit(b"import time; time.sleep(3600)")
            reactor.callFromThread(reactor.callLater, 0.1, reactor.stop)
            try:
                job.wait()
            except ConnectionInterrupted as problem:
                print(problem)

        threads.deferToThread(wait).addErrback(print)
        reactor.run()
        client.close()
        try:
            Client().node()
        except RuntimeError as problem:
            print(problem)
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "the reactor was stopped before the answer came"
    assert second.startswith("the client cannot be used any more: ")


def test_a_reactor_that_has_run_before_is_no_use(address: str, tmp_path: Path) -> None:
    done = run(
        """
        from cloudmytask import Client, reactor as monotonic
        monotonic.install()
        from twisted.internet import reactor
        reactor.callWhenRunning(reactor.stop)
        reactor.run()
        try:
            Client().node()
        except RuntimeError as problem:
            print(problem)
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the client cannot be used any more: ")


def test_the_reactors_own_thread_may_not_wait(address: str, tmp_path: Path) -> None:
    done = run(
        """
        from cloudmytask import Client, reactor as monotonic
        monotonic.install()
        from twisted.internet import reactor

        def ask():
            try:
                Client().node()
            except RuntimeError as problem:
                print(problem)
            reactor.stop()

        reactor.callWhenRunning(ask)
        reactor.run()
        """,
        address,
        tmp_path,
    )
    assert "reactor's thread" in done.stdout
    assert done.stderr == ""


def test_work_that_cannot_begin_fails_instead_of_waiting_for_ever(address: str, tmp_path: Path) -> None:
    done = run(
        """
        from cloudmytask.client import reactor_thread

        def broken(reactor):
            raise ValueError("broken")

        for work in (lambda reactor: 7, broken):
            try:
                reactor_thread.run(work)
            except (TypeError, ValueError) as problem:
                print(isinstance(problem, TypeError), problem)
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


def test_durations_may_be_texts(address: str, tmp_path: Path) -> None:
    done = run(
        """
        from cloudmytask import Client
        from cloudmytask.model.errors import InvalidArgument, WaitTimeout

        job = Client().submit(b"input()", stdin=b"\\n")
        print(job.wait("1m").state.value, job.result("90s").stdout, job.exception(timeout="1h"))
        slow = Client().submit(b"import time; time.sleep(3600)")
        for call in (slow.wait, slow.result, slow.exception):
            for timeout in ("0.01s", "soon"):
                try:
                    call(timeout)
                except (WaitTimeout, InvalidArgument) as problem:
                    print(type(problem).__name__)
        slow.cancel()
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "succeeded  None\n" + "WaitTimeout\nInvalidArgument\n" * 3
    assert done.stdout == "succeeded  None\n" + "WaitTimeout\nInvalidArgument\n" * 3


def test_submit_and_result_are_two_exchanges(address: str, tmp_path: Path) -> None:
    done = run(
        """
        from cloudmytask import Client
        from cloudmytask.wire.guard import GuardedAMP

        asked = []
        ask = GuardedAMP.ask
        def noted(self, command, *arguments, **values):
            asked.append(command.__name__)
            return ask(self, command, *arguments, **values)
        GuardedAMP.ask = noted

        result = Client(failover=False).submit(b"import sys; print('out'); print('err', file=sys.stderr)").result()
        print(result.stdout, result.stderr, asked)
        """,
        address,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out\n err\n ['Hello', 'SubmitJob']\n"
