"""Every verb of ``cmt`` against a real node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest

from cloudmytask.core.job_id import job_id
from cloudmytask.model.job import ClientId
from tests.integration.commands import Commands
from tests.integration.daemons import PATIENCE, node

OUTPUT_MAX = 200_000
SLEEP = "import time\nprint('ready', flush=True)\ntime.sleep(3600)\n"
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"not yet\\n"))
print("ready", flush=True)
while True:
    time.sleep(3600)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(3600)
"""
COUNTED = """
import atexit
from cloudmytask.wire.guard import GuardedAMP
ask, asked = GuardedAMP.ask, []
def noted(self, command, *arguments, **values):
    asked.append(command.__name__)
    return ask(self, command, *arguments, **values)
GuardedAMP.ask = noted
atexit.register(lambda: open("asked", "w").write(" ".join(asked)))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node whose grace never ends: what is killed was killed on purpose."""
    directory = tmp_path_factory.mktemp("node")
    options = ["--state", "state", "--name", "lab", "--slots", "2", "--load-source", "none"]
    limits = ["--output-max", str(OUTPUT_MAX), "--script-max", "1M", "--kill-grace", "1h"]
    with node(["-n", "--pidfile=", "cmt-node", *options, *limits], directory):
        yield f"unix:{directory}/state/node.sock"


@pytest.fixture
def cmt(address: str, tmp_path: Path) -> Commands:
    """Each test is a client of its own."""
    return Commands(tmp_path, address, {"CMT_CLIENT": f"tester-{os.urandom(6).hex()}"})


# run


def test_run_is_the_script_byte_for_byte(cmt: Commands) -> None:
    data = bytes(range(256)) * 300
    script = cmt.script(
        "import sys\ndata = bytes(range(256)) * 300\n"
        "sys.stdout.buffer.write(data)\nsys.stderr.buffer.write(data[::-1])\nsys.exit(3)\n"
    )
    done = cmt("run", script)
    assert (done.returncode, done.stdout, done.stderr) == (3, data, data[::-1])


def test_run_of_a_small_script_takes_two_exchanges(address: str, tmp_path: Path) -> None:
    cmt = Commands(tmp_path, address, before=COUNTED)
    script = cmt.script("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)\n")
    for via, more in (["--via", address], ""), ([], " DescribeCluster"):
        done = cmt(*via, "run", script)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
        assert (tmp_path / "asked").read_text() == f"Hello SubmitJob{more}", "the last for later, nobody waits for it"


def test_output_is_live(cmt: Commands) -> None:
    fifo = cmt.directory / "fifo"
    os.mkfifo(fifo)
    script = cmt.script(f"print('first', flush=True)\nopen({str(fifo)!r}).read()\nprint('second')\n")
    with cmt.started("run", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        fifo.write_text("")  # only now may it go on
        assert process.communicate(timeout=PATIENCE)[0] == b"second\n"
        assert process.returncode == 0


def test_standard_input_is_forwarded(cmt: Commands) -> None:
    script = cmt.script("import sys\nprint(sum(int(line) for line in sys.stdin))\n")
    assert cmt("run", script, stdin=b"1\n2\n3\n4\n5\n").stdout == b"15\n"
    assert cmt("run", "--no-stdin", script, stdin=b"1\n2\n").stdout == b"0\n"
    (cmt.directory / "numbers").write_text("20\n22\n")
    assert cmt("run", "--stdin", "numbers", script, stdin=b"1\n").stdout == b"42\n"


def test_large_input_is_forwarded_and_leaves_nothing_behind(cmt: Commands) -> None:
    spool = cmt.directory / "tmp"
    spool.mkdir()
    cmt.environment["TMPDIR"] = str(spool)
    script = cmt.script("import hashlib, sys\nprint(len(sys.stdin.buffer.read()))\n")
    assert cmt("run", script, stdin=b"x" * 3_000_001).stdout == b"3000001\n"
    assert list(spool.iterdir()) == []


def test_a_script_from_standard_input_and_from_a_pipe(cmt: Commands) -> None:
    source = b"import sys\nprint(sys.argv, sys.stdin.read())\n"
    assert cmt("run", "-", "--flag", stdin=source).stdout == b"['stdin.py', '--flag'] \n"
    fifo = cmt.directory / "piped.py"
    os.mkfifo(fifo)
    with cmt.started("run", str(fifo)) as process:
        fifo.write_bytes(source)
        assert process.communicate(timeout=PATIENCE)[0] == b"['piped.py'] \n"


def test_a_closed_standard_input_is_an_empty_one(cmt: Commands) -> None:
    script = cmt.script("import sys\nprint(repr(sys.stdin.read()))\n")
    line = ["sh", "-c", 'exec "$@" <&-', "sh", *cmt.line("run", script)]
    done = subprocess.run(line, env=cmt.environment, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"''\n", b"")


def test_arguments_and_variables_reach_the_script(cmt: Commands) -> None:
    script = cmt.script("import os, sys\nprint(sys.argv[1:], os.environ['A'], os.environ['CMT_JOB_ID'])\n")
    done = cmt("run", "--env", "A=b=c", script, "--json", "-q", "--", "ü")
    assert done.stdout.decode().startswith("['--json', '-q', '--', 'ü'] b=c ")


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        ("raise SystemExit(0)", [], 0),
        ("raise SystemExit(255)", [], 255),
        ("def", [], 1),
        ("\x01\x02\x03", [], 1),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", [], 137),
        ("import time\ntime.sleep(3600)", ["--timeout", "0.2s"], 124),
    ],
)
def test_exit_codes(cmt: Commands, source: str, options: list[str], code: int) -> None:
    assert cmt("run", *options, cmt.script(source)).returncode == code


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["nowhere.py"], 127, "script-not-found"),
        (["."], 125, "file-unreadable"),
        (["empty.py"], 125, "empty-script"),
        (["large.py"], 125, "script-too-large"),
        (["--qos", "urgent", "good.py"], 125, "usage-error"),
        (["--timeout", "-5", "good.py"], 125, "usage-error"),
        (["--timeout", "0", "good.py"], 125, "invalid-argument"),
        (["--env", "CMT_X=1", "good.py"], 125, "invalid-argument"),
        (["--env", "X", "good.py"], 125, "usage-error"),
        (["--unknown", "good.py"], 125, "usage-error"),
        (["--key", "with space", "good.py"], 125, "invalid-argument"),
        (["--stdin", "nowhere", "good.py"], 125, "file-unreadable"),
        (["--stdin", "-", "-"], 125, "usage-error"),
        ([], 125, "usage-error"),
    ],
)
def test_what_cannot_be_run(cmt: Commands, arguments: list[str], code: int, name: str) -> None:
    cmt.script("", "empty.py")
    cmt.script("#" * (1024 * 1024 + 1), "large.py")
    cmt.script("print()", "good.py")
    done = cmt("run", "--json", *arguments)
    assert done.returncode == code
    said = done.stderr.decode()
    assert said.startswith(f"cmt: {name}: ")
    assert said.count("\n") == 1
    assert json.loads(done.stdout)["error"]["name"] == name
    # Submitting fails likewise, with the failure's own code.
    assert cmt("submit", *arguments).returncode == 2


def test_ten_thousand_arguments(cmt: Commands) -> None:
    script = cmt.script("import sys\nprint(len(sys.argv))\n")
    assert cmt("run", script, *map(str, range(10_000))).stdout == b"10001\n"
    assert b"invalid-argument" in cmt("run", script, *("x" * 100 for _ in range(10_000))).stderr


def test_retries_show_the_output_of_each_attempt(cmt: Commands) -> None:
    script = cmt.script("import os, sys\nn = os.environ['CMT_ATTEMPT']\nprint('attempt', n)\nsys.exit(int(n) < 2)\n")
    done = cmt("run", "--retries", "3", script)
    said = b"cmt: attempt 1 has ended; another follows, with output of its own\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"attempt 1\nattempt 2\n", said)
    assert cmt("run", "-q", "--retries", "3", script).stderr == b""


def test_output_beyond_the_limit_is_cut_and_counted(cmt: Commands) -> None:
    script = cmt.script(f"print('x' * {OUTPUT_MAX + 99})\n")
    told = b"cmt: output-truncated: stdout: 100 bytes beyond the node's output_max were discarded\n"
    for quiet in ((), ("-q",)):
        done = cmt("run", *quiet, script)
        assert (done.returncode, len(done.stdout), done.stderr) == (125, OUTPUT_MAX, told)


def test_cut_output_is_never_taken_for_success(cmt: Commands) -> None:
    job = cmt("submit", cmt.script(f"import sys\nprint('x' * {OUTPUT_MAX + 99})\nprint('e', file=sys.stderr)\n"))
    job_id = job.stdout.decode().strip()
    assert cmt("wait", job_id).returncode == 0, "the script succeeded, and wait shows no output"
    told = b"cmt: output-truncated: stdout: 100 bytes beyond the node's output_max were discarded\n"
    for verb in (("result",), ("result", "-o", "file"), ("logs",), ("logs", "-f"), ("logs", "--tail", "1")):
        done = cmt(*verb, job_id, "-q")
        assert (done.returncode, done.stderr.replace(b"e\n", b"", 1)) == (1, told), verb
    assert cmt("result", "--stderr", job_id).returncode == 0, "that stream is whole"
    done = cmt("result", "--json", job_id)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["discarded"], len(answer["stdout"])) == (
        1,
        {"stdout": 100, "stderr": 0},
        OUTPUT_MAX,
    )


def test_the_library_says_that_output_was_cut(cmt: Commands, address: str) -> None:
    program = cmt.script(
        f"""
from cloudmytask import Client
from cloudmytask.model.errors import OutputTruncated
with Client({address!r}) as client:
    job = client.submit(b"print('x' * {OUTPUT_MAX + 99})")
    try:
        job.result()
    except OutputTruncated as told:
        print(told.name, "100 bytes" in str(told))
    with open("kept", "wb") as kept:
        end = job.copy_output(kept)
    print(end.discarded["stdout"], end.sizes["stdout"])
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, cwd=cmt.directory)
    assert done.stdout.decode().splitlines() == ["output-truncated True", f"100 {OUTPUT_MAX}"], done.stderr


def test_a_script_that_fails_keeps_its_code_though_its_output_was_cut(cmt: Commands) -> None:
    done = cmt("run", "--json", cmt.script(f"import sys\nprint('x' * {OUTPUT_MAX})\nsys.exit(3)\n"))
    assert done.returncode == 3 and b"output-truncated: stdout: 1 bytes" in done.stderr
    assert json.loads(done.stdout)["discarded"] == {"stdout": 1, "stderr": 0}


def test_a_failing_import_of_a_neighbor_gets_a_hint(cmt: Commands) -> None:
    (cmt.directory / "helper.py").touch()
    done = cmt("run", cmt.script("import helper\n"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"cmt: hint: helper.py lies beside the script")


def test_json_has_the_output_in_the_answer(cmt: Commands) -> None:
    done = cmt("run", "--json", cmt.script("import sys\nprint('out')\nsys.exit('err')\n"))
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, b"")
    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("out\n", "err\n", 1)


def test_nobody_reads_any_more(cmt: Commands) -> None:
    script = cmt.script("import time\nwhile True: print('x' * 1000, flush=True); time.sleep(0.01)\n")
    with cmt.started("run", script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
    cmt("wait", "-q", "last")
    assert cmt.json("status", "last")["state"] == "cancelled"


def test_our_output_is_full(cmt: Commands) -> None:
    script = cmt.script("print('x')\n")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            cmt.line("run", script), env=cmt.environment, stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.PIPE, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr.startswith(b"cmt: output-failed: standard output cannot be written: No space left")


# Ctrl-C


def interrupted(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)


@pytest.mark.parametrize(
    ("source", "number", "code"),
    [
        (SLEEP, signal.SIGINT, 130),
        (POLITE, signal.SIGINT, 7),
        (SLEEP, signal.SIGTERM, 143),
        (SLEEP, signal.SIGHUP, 129),
    ],
)
def test_a_signal_ends_the_script(cmt: Commands, source: str, number: int, code: int) -> None:
    with cmt.started("run", cmt.script(source)) as process:
        interrupted(process, number)
        assert process.communicate(timeout=PATIENCE) == (b"", b"")
        assert process.returncode == code
    assert cmt.json("status", "last")["state"] == "cancelled"


def test_the_second_interrupt_kills(cmt: Commands) -> None:
    with cmt.started("run", cmt.script(STUBBORN)) as process:
        interrupted(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"not yet\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert cmt.json("status", "last")["signal"] == signal.SIGKILL


def test_an_interrupt_while_input_is_read_leaves_no_job(cmt: Commands) -> None:
    script = cmt.script("print('ran')\n")
    reading, writing = os.pipe()
    with subprocess.Popen(cmt.line("run", script), env=cmt.environment, stdin=reading) as process:
        os.close(reading)
        with os.fdopen(writing, "wb", buffering=0) as ours:
            ours.write(b"x" * 200_000)  # more than a pipe holds: it is being read
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
    assert cmt.json("ps") == {"jobs": []}


def test_an_interrupted_wait_leaves_the_job_alone(cmt: Commands) -> None:
    job = cmt.submit(SLEEP)
    with cmt.started("logs", "-f", job) as process:
        interrupted(process)
        assert process.wait(PATIENCE) == 130
    assert cmt.json("status", job)["state"] == "running"
    cmt("cancel", job)


def test_cancelled_by_somebody_else(cmt: Commands) -> None:
    with cmt.started("run", cmt.script(SLEEP)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cmt("cancel", "--note", "enough", "last").returncode == 0
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
    assert said.startswith(b"cmt: cancelled: It was cancelled by tester-")
    assert said.count(b"\n") == 1


# Terminals


def test_a_terminal_is_not_commanded_by_output(cmt: Commands) -> None:
    script = cmt.script(r"print('\x1b[31mred\x07 \u202e ü')" + "\n")
    code, shown = cmt.on_terminal("run", script)
    assert code == 0
    assert r"\x1b[31mred\x07 \u202e ü" in shown
    code, shown = cmt.on_terminal("run", "--raw", "-q", script)
    assert "\x1b[31mred\x07 \u202e ü\r\n" in shown
    _, shown = cmt.on_terminal("result", "last")
    assert shown == "\\x1b[31mred\\x07 \\u202e ü\r\n"
    _, shown = cmt.on_terminal("logs", "last")
    assert shown == "\\x1b[31mred\\x07 \\u202e ü\r\n"


def test_a_progress_line_is_shown_on_a_terminal_and_is_gone_before_output(cmt: Commands) -> None:
    script = cmt.script("import time\ntime.sleep(1.5)\nprint('done')\n")
    _, shown = cmt.on_terminal("run", script)
    before, cleared, after = shown.rpartition("\r\x1b[2K")
    assert "cmt: running 1 s: It is running on lab" in before
    assert cleared
    assert after == "done\r\n"
    _, shown = cmt.on_terminal("run", "-q", script)
    assert shown == "done\r\n"


def test_run_says_why_it_waits(tmp_path: Path) -> None:
    with node(["-n", "--pidfile=", "cmt-node", "--state", "state", "--name", "off", "--threshold", "0"], tmp_path):
        cmt = Commands(tmp_path, f"unix:{tmp_path}/state/node.sock")
        with cmt.started("run", cmt.script("print()\n")) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said == b"cmt: waiting: off runs nothing (threshold 0), and no other node is known.\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        with cmt.started("run", "--avoid", "to-come", "script.py") as process:
            assert process.stderr is not None
            assert process.stderr.readline() == said, "a name that no node has may be avoided"
            assert cmt("cancel", "last").returncode == 0
            assert process.wait(PATIENCE) == 143
        assert (
            cmt("run", "--node", "zz", "script.py").returncode,
            cmt("submit", "--node", "zz", "script.py").returncode,
        ) == (
            125,
            5,
        )


def test_a_list_fits_a_terminal_and_heeds_no_color(cmt: Commands) -> None:
    job = cmt.submit("print()\n", "--name", "[bold]a name that is rather long, longer than there is room for in a row")
    cmt("wait", job)
    _, shown = cmt.on_terminal("ps")
    assert job[:6] in shown
    assert "\x1b[32m" in shown
    _, plain = cmt.on_terminal("ps", extra={"NO_COLOR": "1"})
    assert "\x1b[32m" not in plain
    _, plain = cmt.on_terminal("ps", extra={"TERM": "dumb"})
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "[bold]a name" in plain


# submit and what follows


def test_submit_prints_the_id_and_leaves_standard_input_alone(cmt: Commands) -> None:
    script = cmt.script("import sys\nprint(repr(sys.stdin.read()))\n")
    done = cmt("submit", "--name", "mine", script, stdin=b"not for you")
    job = done.stdout.decode().strip()
    assert (done.returncode, done.stderr, len(job)) == (0, b"", 17)
    assert cmt("wait", job).returncode == 0
    assert cmt("result", job).stdout == b"''\n"
    fed = cmt("submit", "--stdin", "-", script, stdin=b"for you").stdout.decode().strip()
    cmt("wait", fed)
    assert cmt("result", fed).stdout == b"'for you'\n"
    assert json.loads(cmt("submit", "--json", script).stdout)["state"] in ("pending", "waiting", "staging", "running")


def test_the_same_key_is_the_same_job(cmt: Commands) -> None:
    script, other = cmt.script("print(1)\n"), cmt.script("print(2)\n", "other.py")
    first = cmt.text("submit", "--key", "k", script)
    assert cmt.text("submit", "--key", "k", script) == first
    done = cmt("submit", "--key", "k", other)
    assert done.returncode == 1
    assert done.stderr.startswith(b"cmt: idempotency-conflict: ")


def test_a_jobs_life(cmt: Commands) -> None:
    job = cmt.submit("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(4)\n", "--name", "life")
    done = cmt("wait", job)
    assert done.returncode == 4
    said = done.stderr.decode().splitlines()
    assert said[0] == "err"
    assert said[1].startswith(f"cmt: {job} failed (code 4, node lab): It exited with code 4 on lab")
    assert cmt("wait", "-q", job).stderr == b""

    done = cmt("result", job)
    assert (done.returncode, done.stdout) == (1, b"out\n")
    assert done.stderr.decode().splitlines()[0] == "err"
    assert cmt("result", "-q", "--stdout", job).stderr == b""
    assert cmt("result", "-q", "--stderr", job).stdout == b""
    assert cmt("result", "-o", "saved", job).stdout == b""
    assert (cmt.directory / "saved").read_bytes() == b"out\n"
    assert cmt("result", "-o", "no/such/directory", job).stderr.startswith(b"cmt: file-unwritable: ")
    answer = cmt.json("result", job)
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "err\n")

    assert cmt.text("why", "-q", job).startswith("It exited with code 4 on lab")
    assert "accepted on lab" in cmt.text("why", job)
    assert set(cmt.json("why", job)) == {"id", "sentence", "details"}

    again = cmt.text("retry", job)
    assert again != job
    assert cmt("wait", "-q", again).returncode == 4
    assert [each["id"] for each in cmt.json("ps", "--name", "life")["jobs"]] == [again, job]

    assert cmt("rm", job).returncode == 0
    done = cmt("result", job)
    assert (done.returncode, done.stderr.decode()) == (
        3,
        f"cmt: job-expired: job {job}: Its client removed it; only this note is left.\n",
    )
    assert [each["id"] for each in cmt.json("ps")["jobs"]] == [again]


def test_status_has_the_documented_fields(cmt: Commands) -> None:
    job = cmt.submit("print()\n")
    cmt("wait", job)
    answer = cmt.json("status", job)
    fields = (
        "id name client qos state origin executor attempt exit_code reason submitted started ended cpu_seconds "
        "peak_memory isolation trail"
    )
    assert set(fields.split()) <= set(answer)
    assert answer["id"] == job
    assert datetime.fromisoformat(answer["submitted"]) <= datetime.fromisoformat(answer["ended"])
    assert "succeeded" in cmt.text("status", job)
    assert cmt.text("status", "-q", job) == "succeeded"
    assert [each["id"] for each in cmt.json("status", job, job)["jobs"]] == [job]


def test_nothing_is_finished_too_early(cmt: Commands) -> None:
    job = cmt.submit(SLEEP)
    done = cmt("result", job)
    assert done.returncode == 4
    assert done.stderr.startswith(b"cmt: job-not-finished: ")
    assert cmt("rm", job).returncode == 4
    assert cmt("retry", job).returncode == 4
    done = cmt("wait", "--timeout", "0.1s", job)
    assert done.returncode == 125
    assert done.stderr.decode() == f"cmt: wait-timeout: job {job} has not ended within 0.1s; it goes on\n"
    assert cmt.json("cancel", job)["state"] == "cancelled"
    assert cmt("cancel", job).stderr.decode() == f"cmt: {job} is cancelled\n"
    assert cmt("wait", "-q", job).returncode == 143


def test_a_job_that_has_ended_is_not_said_to_be_cancelled(cmt: Commands) -> None:
    job = cmt.submit("print()\n")
    cmt("wait", job)
    assert cmt("cancel", job).stderr.decode() == f"cmt: {job} has ended: succeeded\n"


def test_cancel_need_not_wait(cmt: Commands) -> None:
    job = cmt.submit(STUBBORN)
    assert cmt.text("logs", "--tail", "0", job) == ""
    with cmt.started("logs", "-f", job) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert cmt("cancel", "--no-wait", job).stderr.decode() == f"cmt: {job} is being cancelled\n"
        assert process.stdout.readline() == b"not yet\n"
        assert cmt("cancel", job).returncode == 0
        assert process.wait(PATIENCE) == 0


def test_logs_follow_and_their_tail(cmt: Commands) -> None:
    fifo = cmt.directory / "fifo"
    os.mkfifo(fifo)
    job = cmt.submit(
        f"for i in range(30000): print(i)\nprint('ready', flush=True)\nopen({str(fifo)!r}).read()\nprint('end')\n"
    )
    with cmt.started("logs", "-f", job) as whole:
        assert whole.stdout is not None
        for line in whole.stdout:
            if line == b"ready\n":
                break
        assert cmt("logs", "--tail", "2", job).stdout == b"29999\nready\n"
        deep = cmt("logs", "--tail", "20000", job).stdout.splitlines()
        assert (len(deep), deep[0]) == (20_000, b"10001")
        with cmt.started("logs", "-f", "--tail", "1", job) as end:
            assert end.stdout is not None
            assert end.stdout.readline() == b"ready\n"
            fifo.write_text("")
            assert end.stdout.read() == b"end\n"
        assert whole.stdout.read() == b"end\n"
    assert cmt("logs", "--attempt", "2", job).returncode == 3
    assert cmt.json("logs", "--tail", "1", job)["stdout"] == "end\n"


def test_logs_of_an_earlier_attempt(cmt: Commands) -> None:
    job = cmt.submit("import os, sys\nprint(os.environ['CMT_ATTEMPT'])\nsys.exit(1)\n", "--retries", "1")
    cmt("wait", job)
    assert cmt("logs", job).stdout == b"2\n"
    assert cmt("logs", "--attempt", "1", job).stdout == b"1\n"
    assert cmt("logs", "-f", job).stdout == b"2\n"


def test_several_jobs_at_once(cmt: Commands) -> None:
    good, bad = cmt.submit("print()\n", "--name", "a"), cmt.submit("raise SystemExit(9)\n", "--name", "b")
    assert cmt("wait", "-q", good, bad).returncode == 9
    assert cmt("wait", "-q", "--name", "a").returncode == 0
    answer = cmt.json("wait", "-q", "--state", "failed", "--state", "succeeded")
    assert {each["id"] for each in answer["jobs"]} == {good, bad}
    assert len(cmt.text("retry", "--state", "failed").splitlines()) == 1
    cmt("wait", "-q", "last")
    assert cmt("rm", "--name", "b").stderr.count(b"is removed") == 2
    assert cmt("rm", "--name", "b").returncode == 3


def test_ps_in_a_pipe(cmt: Commands) -> None:
    assert cmt.text("ps").split() == ["ID", "NAME", "STATE", "EXIT", "SUBMITTED", "RAN", "NODE"]
    assert cmt("ps", "-q").stdout == b""
    jobs = [cmt.submit("print()\n") for _ in range(3)]
    cmt("wait", *jobs)
    lines = cmt.text("ps").splitlines()
    assert [line.split()[0] for line in lines[1:]] == jobs[::-1]
    assert cmt.text("ps", "-q").splitlines() == jobs[::-1]
    assert cmt.json("ps", "--state", "failed") == {"jobs": []}


def test_selectors(cmt: Commands) -> None:
    assert cmt("status", "last").returncode == 3
    job = cmt.submit("print()\n")
    assert (
        cmt.text("status", "-q", "last") == cmt.text("status", "-q", job[:7]) == cmt.text("status", "-q", job.upper())
    )
    client = ClientId(cmt.environment["CMT_CLIENT"])
    key = next(key for key in map(str, count()) if job_id(client, key)[0] == job[0])
    alike = cmt.submit("print()\n", "--key", key)
    done = cmt("why", job[0])
    assert done.returncode == 2
    assert done.stderr.startswith(b"cmt: ambiguous-job: ")
    assert all(each in done.stderr.decode() for each in (job, alike))
    assert cmt("why", "").returncode == 3
    assert cmt("cancel", "").returncode == 2
    assert cmt("cancel").returncode == 2


def test_last_is_never_an_older_job(cmt: Commands) -> None:
    older = cmt.submit("print('older')\n")
    last = cmt.submit("print('last')\n")
    assert cmt("wait", older, last).returncode == 0
    assert cmt("rm", "last").returncode == 0
    for verb in "retry", "rm", "result", "logs":
        done = cmt(verb, "last")
        assert (done.returncode, done.stdout) == (3, b""), verb
        assert done.stderr.startswith(f"cmt: job-expired: job {last}".encode()), verb
    assert cmt.text("status", "-q", "last") == "expired"
    assert cmt.text("why", "-q", "last") == "Its client removed it; only this note is left."
    assert [each["id"] for each in cmt.json("ps")["jobs"]] == [older]


@pytest.mark.parametrize("verb", ["status", "result", "logs", "cancel", "retry", "why", "rm"])
def test_an_unknown_job(cmt: Commands, verb: str) -> None:
    done = cmt(verb, "--json", job_id(ClientId("nobody"), "k"))
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["name"] == "no-such-job"
    assert done.stderr.startswith(b"cmt: no-such-job: ")


@pytest.mark.parametrize("text", ["zzzzzzzz", "nosuchjob", "0" * 16 + "1"])
def test_what_is_no_id_is_no_job(cmt: Commands, text: str) -> None:
    assert cmt("status", text).returncode == 3


def test_waiting_for_an_unknown_job_is_our_failure(cmt: Commands) -> None:
    assert cmt("wait", "zzzzzzzz").returncode == 125


def test_a_job_of_somebody_else_is_no_job(cmt: Commands) -> None:
    job = cmt.submit("print()\n")
    cmt.environment["CMT_CLIENT"] = "somebody-else"
    assert cmt("status", job).returncode == 3
    cmt.environment["CMT_CLIENT"] = "not a name"
    assert cmt("ps").returncode == 2


def test_doctor(cmt: Commands) -> None:
    answer = cmt.json("doctor")
    checks = {each["name"]: each for each in answer["checks"]}
    assert checks["node"]["level"] == "ok"
    assert checks["reactor"]["level"] == "ok"
    assert {"python", "clock", "state", "disk", "bwrap", "nft", "ip", "chromium", "systemd-notify"} <= set(checks)
    assert "lab" in cmt("doctor").stdout.decode()
    state = cmt.environment["CMT_NODE"].removeprefix("unix:").removesuffix("/node.sock")
    assert state in checks["state"]["text"] and state in checks["disk"]["text"], "that of the node that answers"
    cmt.environment["CMT_NODE"] = "unix:/nowhere"
    done = cmt("doctor", "-q")
    assert done.returncode == 1
    assert b"unix:/nowhere: No such file or directory" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cmt: Commands, shell: str) -> None:
    assert "_CMT_COMPLETE" in cmt.text("completion", shell)


@pytest.mark.parametrize("verb", ["ps", "status last", "logs last", "cancel last"])
def test_no_node_is_exit_5(cmt: Commands, verb: str) -> None:
    cmt.environment["CMT_NODE"] = "unix:/nowhere"
    done = cmt(*verb.split())
    assert done.returncode == 5
    assert done.stderr == (
        b'cmt: no-node: $CMT_NODE unix:/nowhere: No such file or directory (start one with "twistd -n cmt-node")\n'
    )


def test_a_node_that_was_named_is_not_replaced(cmt: Commands) -> None:
    done = cmt("--via", "127.0.0.1:1", "run", cmt.script("print()\n"))
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"cmt: no-node: --via 127.0.0.1:1: Connection refused")
    assert cmt("--via", "127.0.0.1:1", "submit", cmt.script("print()\n")).returncode == 5
    assert cmt("--via", "nonsense", "ps").returncode == 2


def test_help_and_version(cmt: Commands) -> None:
    assert cmt.text().startswith("Usage: cmt")
    assert cmt.text("--version").startswith("cmt ")
    assert cmt("nonsense").returncode == 2
    done = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *cmt.line("--help")], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.stderr == b""


# A node that dies


def test_run_survives_the_death_of_its_node(tmp_path: Path) -> None:
    cmt = Commands(tmp_path, f"unix:{tmp_path}/state/node.sock")
    script = cmt.script(
        "import pathlib, time\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if mark.exists():\n    print('second')\n"
        "else:\n    mark.touch()\n    print('first', flush=True)\n    time.sleep(3600)\n"
    )
    line = ["-n", "--pidfile=", "cmt-node", "--state", "state", "--load-source", "none"]
    with node(line, tmp_path) as first:
        process = subprocess.Popen(
            cmt.line("run", script), env=cmt.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        first.process.kill()
        first.ended()
    with node(line, tmp_path):
        assert process.communicate(timeout=PATIENCE)[0] == b"second\n"
        assert process.returncode == 0


def test_a_node_that_does_not_come_back(tmp_path: Path) -> None:
    impatient = "import cloudmytask.cli.reach\ncloudmytask.cli.reach.PATIENCE = (0.1, 0.2)\n"
    cmt = Commands(tmp_path, f"unix:{tmp_path}/state/node.sock", before=impatient)
    with node(["-n", "--pidfile=", "cmt-node", "--state", "state"], tmp_path) as only:
        process = subprocess.Popen(
            cmt.line("run", cmt.script(SLEEP)), env=cmt.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        job = cmt.text("ps", "-q")
        only.process.kill()
        only.ended()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert said.startswith("cmt: connection-interrupted: ")
    kept = f"job {job} is kept there and goes on when that node is back; ask again then: cmt wait {job}\n"
    assert said.endswith(kept)
