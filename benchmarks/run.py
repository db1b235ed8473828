"""All benchmarks: a real node, a real client, ratios against a floor measured in the same run.

Writes its section of docs/benchmarks.md and benchmarks/figures.json. Usage: python -m benchmarks.run [NAME ...]
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from benchmarks import floor
from benchmarks.daemons import children_cpu_seconds, cpu_seconds
from benchmarks.meetings import connected, live, reactor, run_one, sleep
from benchmarks.reporting import Figure, record
from cloudmytask.client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.model.job import JobSpec, JobState, StreamName
from cloudmytask.wire.commands import PIECE, WINDOW

SLOTS = 2


@contextmanager
def node(directory: Path) -> Iterator[int]:
    """A daemon with two slots; its pid."""
    state = directory / "state"
    command = [sys.executable, "-m", "twisted", "cmt-node"]
    command += ["--state", str(state), "--slots", str(SLOTS), "--load-source", "none", "--name", "bench"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        manager.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def run_many(
    client: NodeClient, source: Source, count: int, at_once: int = 64, said: bytes | None = None
) -> float:
    """Seconds for ``count`` jobs, ``at_once`` of them under way; with the output of each if it ``said`` something."""
    gate = DeferredSemaphore(at_once)
    began = time.perf_counter()
    if said is None:
        work = [gate.run(lambda: Deferred.fromCoroutine(run_one(client, source))) for _ in range(count)]
    else:
        work = [gate.run(lambda: Deferred.fromCoroutine(brought_back(client, source, said))) for _ in range(count)]
    await gatherResults(work, consumeErrors=True)
    return time.perf_counter() - began


async def brought_back(client: NodeClient, source: Source, said: bytes) -> None:
    """Submit, wait, and have the output, as the client library's ``submit(...).result()`` does."""
    submitted = await client.submit_watched(JobSpec(script=source.blob), source, output=True)
    watched = submitted.watched
    assert watched is not None
    ended = await watched.until(lambda _: False)
    assert ended.state is JobState.SUCCEEDED and watched.output is not None, ended
    assert watched.output[StreamName.STDOUT] == said


async def throughput(client: NodeClient, directory: Path, pid: int) -> list[Figure]:
    """Trivial scripts per second without and with output, in turn with the floor."""
    return [
        await _throughput(client, directory, pid, "pass", None, "trivial scripts per second", 0.80),
        await _throughput(client, directory, pid, "print('x')", b"x\n", "the same, their output brought back", 0.60),
    ]


async def _throughput(
    client: NodeClient, directory: Path, pid: int, text: str, said: bytes | None, name: str, goal: float
) -> Figure:
    script = directory / "trivial.py"
    script.write_text(f"{text}\n")
    source = Source.of_bytes(script.read_bytes())
    await run_many(client, source, 50, said=said)
    own, ours, children = cpu_seconds(pid), time.process_time(), children_cpu_seconds(pid)
    found = await floor.sandwich(script, SLOTS, lambda count: run_many(client, source, count, said=said))
    count = found.chunks * floor.CHUNK / 1000
    note = (
        f"{found}; CPU a job: node {(cpu_seconds(pid) - own) / count:.2f} ms, client "
        f"{(time.process_time() - ours) / count:.2f} ms, script {(children_cpu_seconds(pid) - children) / count:.1f} ms"
    )
    return Figure(f"{name}, against the floor", found.value, "x", f">= {goal:.2f}", found.value >= goal, note)


async def latency(client: NodeClient, directory: Path, _pid: int) -> list[Figure]:
    """Submit to result, one after the other, in turn with the floor."""
    script = directory / "trivial.py"
    script.write_text("pass\n")
    source = Source.of_bytes(b"pass\n")
    ours, bare = [], []
    for _ in range(100):
        began = time.perf_counter()
        await run_one(client, source)
        ours.append(time.perf_counter() - began)
        bare.append(floor.one(script))
    sync = fsync_seconds(directory)
    value = (statistics.median(ours) - sync) / statistics.median(bare)
    note = (
        f"p50 {statistics.median(ours) * 1000:.1f} ms; the floor's {statistics.median(bare) * 1000:.1f} ms; "
        f"one fsync {sync * 1000:.2f} ms"
    )
    return [
        Figure("submit to result p50 less one fsync, against the floor's", value, "x", "<= 1.3", value <= 1.3, note)
    ]


async def makespan(client: NodeClient, directory: Path, _pid: int) -> list[Figure]:
    """Forty scripts of a second on two slots."""
    script = directory / "second.py"
    script.write_text("import time\ntime.sleep(1)\n")
    source = Source.of_bytes(script.read_bytes())
    ours = await run_many(client, source, 40)
    bare = floor.many(script, 40, SLOTS)
    value = ours / bare
    note = f"{ours:.2f} s; the floor {bare:.2f} s"
    return [Figure("40 scripts of 1 s on 2 slots, against the floor", value, "x", "<= 1.02", value <= 1.02, note)]


async def idle(_client: NodeClient, _directory: Path, pid: int) -> list[Figure]:
    """What a node costs that does nothing."""
    used, began = cpu_seconds(pid), time.perf_counter()
    await sleep(20)
    share = (cpu_seconds(pid) - used) / (time.perf_counter() - began)
    resident = next(
        int(line.split()[1]) / 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return [
        Figure("idle CPU", share * 100, "% of a core", "<= 0.5", share <= 0.005, "over 20 s"),
        Figure("resident memory", resident, "MiB", "<= 80", resident <= 80, "after the other benchmarks"),
    ]


async def streaming(client: NodeClient, directory: Path, _pid: int) -> list[Figure]:
    """Output that is in the store, streamed to a client, against bare AMP calls with the same pieces and window."""
    size = 256 * 1024 * 1024
    script = b"import os\nfor _ in range(4096): os.write(1, b'x' * 65536)\n"
    job = await client.submit(JobSpec(script=Source.of_bytes(script).blob), Source.of_bytes(script))
    await client.wait(job.id)
    ratios, rates = [], []
    for _ in range(3):
        received = 0

        def count(_stream: StreamName, data: bytes) -> None:
            nonlocal received
            received += len(data)

        began = time.perf_counter()
        await client.output(job.id, count)
        ours = time.perf_counter() - began
        assert received == size
        bare = await raw_amp(directory / "raw.sock", size)
        ratios.append(bare / ours)
        rates.append(size / ours / 1024**2)
        (directory / "raw.sock").unlink(missing_ok=True)
    value = statistics.median(ratios)
    note = f"{statistics.median(rates):.0f} MiB/s of 256 MiB, each piece read from the disk and verified"
    return [Figure("output streamed, against raw chunked AMP", value, "x", ">= 0.5", value >= 0.5, note)]


class Piece(amp.Command):
    """What raw chunked AMP sends."""

    arguments = [(b"data", amp.String())]  # noqa: RUF012 - AMP's interface


RAW_SENDER = f"""
import sys
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols import amp
class Piece(amp.Command):
    arguments = [(b"data", amp.String())]
left = int(sys.argv[2])
def begin(protocol):
    data = b"x" * {PIECE}
    def send(_=None):
        global left
        if left > 0:
            left -= len(data)
            protocol.callRemote(Piece, data=data).addCallback(send)
    for _ in range({WINDOW}):
        send()
connectProtocol(UNIXClientEndpoint(reactor, sys.argv[1]), amp.AMP()).addCallback(begin)
reactor.run()
"""


async def raw_amp(path: Path, size: int) -> float:
    """Seconds in which another process sends us ``size`` bytes in AMP calls, a window of them at a time."""
    done: Deferred[None] = Deferred()
    received = 0
    began = 0.0

    class Receiver(amp.AMP):
        @Piece.responder
        def piece(self, data: bytes) -> dict[str, Any]:
            nonlocal received, began
            began = began or time.perf_counter()
            received += len(data)
            if received >= size and not done.called:
                done.callback(None)
            return {}

    port = reactor.listenUNIX(str(path), Factory.forProtocol(Receiver))
    sender = subprocess.Popen([sys.executable, "-c", RAW_SENDER, str(path), str(size)])
    await done
    seconds = time.perf_counter() - began
    sender.kill()
    sender.wait()
    await port.stopListening()
    return seconds


def fsync_seconds(directory: Path) -> float:
    """The median of what an fsync of a page takes here."""
    taken = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


BENCHMARKS: dict[str, Callable[[NodeClient, Path, int], Coroutine[Deferred[Any], Any, list[Figure]]]] = {
    "throughput": throughput,
    "latency": latency,
    "makespan": makespan,
    "streaming": streaming,
    "idle": idle,
}


async def measure(names: list[str], directory: Path, pid: int) -> list[Figure]:
    """Run the benchmarks of these names."""
    client = await connected(directory / "state" / "node.sock")
    figures: list[Figure] = []
    for name in names:
        for figure in await BENCHMARKS[name](client, directory, pid):
            print(figure, flush=True)
            figures.append(figure)
    client.close()
    return figures


def main() -> None:
    """Measure, print, write."""
    names = sys.argv[1:] or list(BENCHMARKS)
    with tempfile.TemporaryDirectory() as name, node(Path(name)) as pid:
        figures = live(measure(names, Path(name), pid))
    if not sys.argv[1:]:
        record("node", figures)


if __name__ == "__main__":
    main()
