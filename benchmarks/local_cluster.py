"""``make cluster``: a whole cluster on this machine, to try things out: three nodes and a CSU on loopback.

Invariant: everything that it started has ended when it ends, unless it is killed itself (SIGKILL). An instance that is
killed from outside stays away, so that one can see what the others make of it.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

HOST = "127.0.0.1"
GROUP = "239.255.77.77:7700"
READY_TIME = 30.0
"""Seconds that an instance may take until it serves."""
END_TIME = 20.0
"""Seconds that it may take to end before it is killed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@frozen
class Planned:
    """An instance that is to be started."""

    name: str
    port: int
    plugin: str = "cmt-node"
    options: tuple[str, ...] = ("--slots", "2", "--load-source", "none", "--drain-timeout", "2s")

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{HOST}:{self.port}"

    def command(self, directory: Path, cluster: str) -> list[str]:
        """Its command line."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        where = ["--state", str(directory / self.name), "--name", self.name, "--listen", self.address]
        group = ["--group", GROUP, "--interface", HOST, "--cluster", cluster]
        return [sys.executable, twistd, "-n", "--pidfile=", self.plugin, *where, *group, *self.options]


PLAN = (Planned("a", 7001), Planned("b", 7002), Planned("c", 7003), Planned("csu", 7009, "cmt-csu", ()))


@define(eq=False)
class Instance:
    """One that was started; ``descriptor`` becomes readable when it ends."""

    planned: Planned
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]
    descriptor: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.descriptor = os.pidfd_open(self.process.pid)

    def ended(self) -> str:
        """How it ended, and how to have it again."""
        code = self.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{self.planned.name} has ended ({how}); to start it again:\n  {shlex.join(self.command)}"


@define(eq=False)
class LocalCluster:
    """All of them.

    :ivar signaled: becomes readable when a signal asks us to end.
    :ivar manager: where instances say that they serve, as sd_notify(3) describes.
    """

    directory: Path
    signaled: socket.socket
    manager: socket.socket
    plan: Sequence[Planned]
    cluster: str = field(factory=lambda: f"cluster-{os.getuid()}")
    instances: list[Instance] = field(init=False, factory=list)

    def check_ports(self) -> None:
        """:raises SystemExit: one is taken."""
        for each in self.plan:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, each.port))
                except OSError as error:
                    raise failure(f"{each.address}: {error.strerror}; is such a cluster running already?") from None

    def start(self) -> bool:
        """Start all, one after another; False if a signal came before they were up.

        :raises SystemExit: one did not come up; its last words are shown.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in self.plan:
            instance = self._started(each)
            self.instances.append(instance)
            if not self._ready(instance):
                return False
        return True

    def _started(self, planned: Planned) -> Instance:
        command = planned.command(self.directory, self.cluster)
        log = self.directory / f"{planned.name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                env=environment(self.manager),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for us: we end them in order
            )
        return Instance(planned, command, log, process)

    def _ready(self, instance: Instance) -> bool:
        deadline = time.monotonic() + READY_TIME
        with selectors.DefaultSelector() as selector:
            for each in (self.manager, self.signaled, instance.descriptor):
                selector.register(each, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                events = [key.fileobj for key, _ in selector.select(left)]
                if self.signaled in events:
                    return False
                if self.manager in events and b"READY=1" in self.manager.recv(4096).splitlines():
                    return True
                if instance.descriptor in events:
                    break
        words = instance.log.read_text(errors="replace").splitlines()[-10:]
        raise failure("\n".join([f"{instance.planned.name} did not come up; the end of {instance.log}:", *words]))

    def watch(self) -> None:
        """Say which instance ended, until a signal comes or none is left."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.signaled, selectors.EVENT_READ)
            selector.register(self.manager, selectors.EVENT_READ)
            for each in self.instances:
                selector.register(each.descriptor, selectors.EVENT_READ, each)
            left = len(self.instances)
            while left:
                for key, _ in selector.select():
                    if key.fileobj is self.signaled:
                        return
                    if key.fileobj is self.manager:
                        self.manager.recv(4096)  # what else they tell is of no use here
                        continue
                    selector.unregister(key.fileobj)
                    left -= 1
                    say(key.data.ended())

    def end(self) -> None:
        """End all that still run."""
        for each in self.instances:
            if each.process.poll() is None:
                each.process.terminate()
        deadline = time.monotonic() + END_TIME
        for each in self.instances:
            try:
                each.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"{each.planned.name} does not end, so it is killed")
                each.process.kill()
                each.process.wait()
            os.close(each.descriptor)
        self.instances.clear()


def environment(manager: socket.socket) -> Mapping[str, str]:
    """Ours, without what instances would take as meant for them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WATCHDOG_", "CMT_"))}
    return {**kept, "NOTIFY_SOCKET": f"@{manager.getsockname()[1:].decode()}"}


def introduction(cluster: LocalCluster) -> str:
    """How to talk to it."""
    nodes = [each for each in cluster.instances if each.planned.plugin == "cmt-node"]
    lines = [f"{len(nodes)} nodes and a CSU; Ctrl-C ends them.", ""]
    lines += [
        f"  {each.planned.name:4} {each.planned.address}  pid {each.process.pid}  log {each.log}"
        for each in cluster.instances
    ]
    return "\n".join(
        [
            *lines,
            "",
            "In another terminal:",
            "",
            f"  PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
            f"  export CMT_NODE={nodes[0].planned.address}",
            "  cmt nodes; cmt topology; cmt top",
            "  for i in $(seq 12); do cmt submit examples/sleep5.py; done; cmt ps; cmt why last",
            f"  kill -9 {nodes[1].process.pid}  # {nodes[1].planned.name}: its jobs finish elsewhere",
            "  cmt ban add --client mallory --reason test --for 1h",
            "  CMT_CLIENT=mallory cmt submit examples/primes.py",
        ]
    )


def say(text: str) -> None:
    """A line for the person in front of it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def failure(text: str) -> SystemExit:
    """The end of this program, with code 1 and a word about it on standard error."""
    return SystemExit(f"cluster: {text}")


def main(arguments: Sequence[str], plan: Sequence[Planned] = PLAN) -> None:
    """Run until a signal ends it.

    :param arguments: the directory for states and logs; ``.cluster`` if absent.
    """
    if len(arguments) > 1:
        raise failure("usage: python -m benchmarks.local_cluster [DIRECTORY]")
    signaled, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in SIGNALS:
        signal.signal(number, _noted)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # a name in the abstract namespace, chosen by the kernel: unix(7)
        cluster = LocalCluster(Path(arguments[0] if arguments else ".cluster"), signaled, manager, plan)
        cluster.check_ports()
        try:
            if cluster.start():
                say(introduction(cluster))
                cluster.watch()
        finally:
            say("ending ...")
            cluster.end()


def _noted(_number: int, _frame: object) -> None:
    """The wakeup descriptor tells of it."""


if __name__ == "__main__":
    main(sys.argv[1:])
