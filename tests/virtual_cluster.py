"""Several nodes, their network and their clients in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from attrs import define, field

from cloudmytask.boundaries import Launch
from cloudmytask.client.node_client import NodeClient
from cloudmytask.codec.people import JobStatus
from cloudmytask.config import NodeConfig
from cloudmytask.model.job import Job
from cloudmytask.simulation.bus import SimulatedGroup
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import Desk


@define(eq=False)
class Company(Desk):
    """Hosts named ``a``, ``b``, ``c`` …, each with a node of one slot, on one network."""

    size: int = 2
    options: Mapping[str, Any] = field(factory=dict)
    """For every node."""
    each: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    """For one node, by its name."""
    seed: int = 7
    key: bytes | None = None
    skews: Mapping[str, float] = field(factory=dict)
    """Seconds by which the wall clock of a host is ahead, by its name."""
    clock: VirtualClock = field(factory=VirtualClock)
    launches: list[tuple[str, Launch]] = field(factory=list)
    """Where each script was started, in order."""
    plans: dict[str, tuple[ScriptPlan, ...]] = field(factory=dict)
    network: Network = field(init=False)
    group: SimulatedGroup = field(init=False)
    hosts: dict[str, Host] = field(init=False, factory=dict)
    _numbers: count[int] = field(factory=lambda: count(1))

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        dice = random.Random(self.seed)
        self.group = SimulatedGroup(self.network, random.Random(dice.random()))
        for index in range(self.size):
            name = chr(ord("a") + index)
            options: dict[str, Any] = {"slots": 1, "load_source": "none", "listen": (f"127.0.0.{index + 1}:7001",)}
            config = NodeConfig(
                state=Path("/simulated"), name=name, **{**options, **self.options, **self.each.get(name, {})}
            )
            self.hosts[name] = Host(
                name,
                self.clock,
                self.network,
                config,
                self._planned(name),
                SeededEntropy(random.Random(dice.random())),
                group=self.group,
                key=self.key,
                skew=self.skews.get(name, 0.0),
            )
            self.hosts[name].start()

    def _planned(self, host: str) -> Callable[[Launch], ScriptPlan]:
        def plan(launch: Launch) -> ScriptPlan:
            self.launches.append((host, launch))
            return self.planned(launch)

        return plan

    def acquainted(self) -> None:
        """Wait until every node knows every other one as alive."""
        self.until(lambda: all(len(self.alive(name)) == self.size for name in self.hosts))

    def alive(self, name: str) -> list[str]:
        """The nodes that one of them believes to be alive, itself included."""
        view = self.hosts[name].node.cluster()
        return sorted(m.announcement.name for m in view.members if m.standing == "alive")

    def connect(self, name: str, client: str = "ann") -> NodeClient:
        """A client's connection to one of the nodes."""
        return self.result(self.hosts[name].connect(client, client))

    def output(self, client: NodeClient, job: JobStatus, **options: Any) -> tuple[bytes, bytes]:
        """What a job wrote."""
        return self.read(client, job, **options)[:2]

    def why(self, client: NodeClient, job: JobStatus) -> str:
        """All that ``cmt why`` would say."""
        explanation = self.result(client.explain(job.id))
        return "\n".join([explanation.sentence, *explanation.details])

    def record(self, name: str, job: JobStatus) -> Job:
        """What the disk of a host holds of a job."""
        return self.hosts[name].disk.jobs[job.id]

    def ran(self, job: JobStatus) -> list[str]:
        """On which hosts a job's script was started, in order."""
        return [host for host, launch in self.launches if launch.id.job == job.id]
