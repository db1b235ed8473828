"""What keeps the scripts of a node from its daemon: each with a real daemon, and real scripts that try."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudmytask.model.job import ClientId
from cloudmytask.process.callers import Callers
from tests.integration.commands import Commands
from tests.integration.daemons import ROOT, Node, node

ASK = """
import sys
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.defer import Deferred
from cloudmytask.client import connect
async def ask():
    try:
        client = await connect(UNIXClientEndpoint(reactor, sys.argv[1]), reactor, "bob")
        await client.ban("mallory", "test", 60.0)
        print("an administrator", flush=True)
    except Exception as problem:
        print(f"{type(problem).__name__}: {problem}", flush=True)
def begin():
    Deferred.fromCoroutine(ask()).addBoth(lambda _: reactor.stop())
reactor.callWhenRunning(begin)
reactor.run()
"""
"""A program that tries to ban somebody, as bob."""

SHED = """
import os, subprocess, sys, time
if "orphan" in sys.argv[2]:
    if os.fork():
        time.sleep(8)  # or the job would end
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.2)  # its parent has ended
environment = {} if "clean" in sys.argv[2] else os.environ
session = "session" in sys.argv[2]
command = [sys.executable, "-c", sys.argv[3], sys.argv[1]]
done = subprocess.run(command, env=environment, start_new_session=session, capture_output=True, text=True)
print(done.stdout + done.stderr, flush=True)
"""
"""A script that has it run, after it has shed some of what shows that it is a script."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Path]]:
    """A node whose soft limit of descriptors was 256 when it was started."""
    cwd = tmp_path_factory.mktemp("walls")
    before = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
    arguments = ["-n", "--pidfile=", "cmt-node", "--state", str(cwd / "state"), "--load-source", "none", "--slots", "2"]
    with node(arguments, cwd, before=before, extra={"SECRET": "of the daemon"}) as made:
        yield made, cwd / "state" / "node.sock"


def ran(sock: Path, script: str, *arguments: str, client: str = "ann", options: tuple[str, ...] = ()) -> str:
    """What a script says, run for a client."""
    cmt = Commands(sock.parent.parent, f"unix:{sock}", {"CMT_CLIENT": client})
    done = cmt("run", *options, cmt.script(script), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_row_06_a_node_uses_the_hard_limit_of_descriptors_and_scripts_get_their_own(served: tuple[Node, Path]) -> None:
    daemon, sock = served
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    script = "import resource as r; print(*r.getrlimit(r.RLIMIT_NOFILE))"
    assert ran(sock, script).split() == ["256", str(hard)]
    assert ran(sock, script, options=("--max-cpu-time", "100s")).split() == ["256", str(hard)], "by way of a shell"
    assert ran(sock, script, options=("--max-open-files", "300")).split() == ["300", "300"], "what the job says counts"


def test_row_08_the_system_prefers_scripts_to_the_daemon(served: tuple[Node, Path]) -> None:
    daemon, sock = served
    own = int(Path(f"/proc/{daemon.process.pid}/oom_score_adj").read_text())
    said = ran(sock, "import time; time.sleep(0.1); print(open('/proc/self/oom_score_adj').read())")
    assert int(said) == min(1000, own + 500)


def test_the_daemon_hides_its_memory(served: tuple[Node, Path]) -> None:
    daemon, _ = served
    # to others than root the files of a process that may not be dumped belong to root and are closed
    library = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    assert subprocess.run([sys.executable, "-c", library], capture_output=True, text=True).stdout.strip() == "1"
    if os.geteuid() == 0:
        cat = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "cat",
            f"/proc/{daemon.process.pid}/environ",
        ]
        assert "Permission denied" in subprocess.run(cat, capture_output=True, text=True).stderr
    else:
        with pytest.raises(PermissionError):
            Path(f"/proc/{daemon.process.pid}/environ").read_bytes()


@pytest.mark.parametrize("how", ["plain", "clean session", "session", "clean"])
def test_a_script_is_no_administrator_and_is_the_client_whose_job_it_is(served: tuple[Node, Path], how: str) -> None:
    _, sock = served
    said = ran(sock, SHED, str(sock), how, ASK)
    assert "NotPermitted: that is for administrators, and this is a script of ann's" in said


def test_a_script_sees_the_jobs_of_its_own_client_only(served: tuple[Node, Path]) -> None:
    _, sock = served
    said = ran(sock, "import os; print(os.environ['CMT_JOB_ID'])", client="bob")
    script = (
        "import os, sys\nfrom cloudmytask import Client\nwith Client(f'unix:{sys.argv[1]}', client='bob') as cloud:\n"
        "    seen = {job.id for job in cloud.jobs()}\nprint(os.environ['CMT_JOB_ID'] in seen, sys.argv[2] in seen)\n"
    )
    said = ran(sock, script, str(sock), said.strip())
    assert said == "True False\n"


def test_a_script_that_has_left_its_family_and_its_environment_is_not_let_in(served: tuple[Node, Path]) -> None:
    _, sock = served
    said = ran(sock, SHED, str(sock), "orphan clean session", ASK)
    assert "NotPermitted: this process belongs to a script" in said


def test_people_are_administrators_as_before(served: tuple[Node, Path]) -> None:
    _, sock = served
    done = subprocess.run([sys.executable, "-c", ASK, str(sock)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "an administrator\n", done.stderr


def test_who_has_ended_is_taken_for_a_script() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    found = Callers(lambda _group: None, 1)(gone.pid)
    assert found is not None and found.client is None


def test_who_asks_from_our_own_process_is_no_script() -> None:
    assert Callers(lambda _group: ClientId("ann"), 1 << 40)(os.getpid()) is None
