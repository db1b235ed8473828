"""The Central Supervisory Unit among nodes, in virtual time: it sees, remembers, bans upon two words, and is in the way
of nobody."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Link, PeerDoor
from cloudmytask.boundaries.supervision import SeenInstance
from cloudmytask.config import CsuConfig, NodeConfig
from cloudmytask.core.job_id import job_id
from cloudmytask.csu.registry import Registry
from cloudmytask.csu.unit import REPORTED_TERM
from cloudmytask.csu.witnesses import WINDOW, Witnesses
from cloudmytask.model.cluster import (
    Announcement,
    Ban,
    BanReport,
    BootId,
    Capacity,
    NodeId,
    Role,
    Standing,
)
from cloudmytask.model.errors import Banned, InvalidArgument, NoSuchBan, NoSuchJob, NotPermitted
from cloudmytask.model.job import AttemptId, ClientId
from cloudmytask.net.peer_links import PeerLinks
from cloudmytask.simulation.bus import SimulatedGroup
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import result_of, until
from tests.virtual_supervisor import SupervisorHost

T = TypeVar("T")

ROOT, MALLORY = ClientId("root"), ClientId("mallory")
CSU = "127.0.0.1:7009"
JOB = job_id(ROOT, "key")


def seen(name: str, standing: Standing = Standing.ALIVE, last_seen: float = 200.0) -> SeenInstance:
    return SeenInstance(NodeId(name * 32), Role.NODE, name, "127.0.0.1:1", "1", standing, 100.0, last_seen)


def announced(name: str, *, leaving: bool = False) -> Announcement:
    return Announcement(
        cluster="cmt",
        role=Role.NODE,
        node_id=NodeId(name * 32),
        boot_id=BootId("0" * 16),
        incarnation=0,
        sequence=1,
        name=name,
        address="127.0.0.1:1",
        interval=1.0,
        capacity=Capacity(1, 1),
        leaving=leaving,
        version="1",
    )


def report(reporter: str = "a", client: ClientId = MALLORY) -> BanReport:
    return BanReport(client, "went on asking", NodeId(reporter * 32), reporter, 30)


class TestRegistry:
    def test_it_knows_since_when_and_until_when(self) -> None:
        registry = Registry()
        registry.heard(announced("a"), 100.0)
        registry.heard(announced("b"), 150.0)
        registry.heard(announced("a"), 200.0)
        assert registry.instances() == (evolve(seen("b"), first_seen=150.0, last_seen=150.0), seen("a"))

    def test_only_what_changed_is_written_again(self) -> None:
        registry = Registry()
        registry.recall([seen("a"), seen("b")])
        assert registry.take_changed() == ()
        registry.heard(announced("b"), 300.0)
        registry.stands(NodeId("b" * 32), Standing.ALIVE)
        registry.stands(NodeId("a" * 32), Standing.LEFT)
        registry.stands(NodeId("c" * 32), Standing.DEAD)
        changed = registry.take_changed()
        assert [(each.name, each.standing) for each in changed] == [("a", Standing.LEFT), ("b", Standing.ALIVE)]
        assert registry.take_changed() == ()
        registry.changed_again(changed)
        assert registry.take_changed() == changed

    def test_what_is_only_remembered_is_not_thought_alive(self) -> None:
        registry = Registry()
        registry.recall([seen("a"), seen("b", Standing.LEFT)])
        assert [each.standing for each in registry.instances()] == [Standing.DEAD, Standing.LEFT]

    def test_a_last_word_is_heard(self) -> None:
        registry = Registry()
        registry.heard(announced("a", leaving=True), 1.0)
        assert registry.instances()[0].standing is Standing.LEFT

    def test_beyond_its_limit_it_forgets_those_seen_longest_ago(self) -> None:
        registry = Registry(2)
        for name, wall in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0)):
            registry.heard(announced(name), wall)
        assert [each.name for each in registry.instances()] == ["a", "c"]


class TestWitnesses:
    def test_two_nodes_are_enough_and_one_never_is(self) -> None:
        witnesses = Witnesses()
        assert [witnesses.hear(report("a"), float(now)) for now in range(20)] == [()] * 20
        assert witnesses.hear(report("b", ClientId("eve")), 20.0) == ()
        assert witnesses.hear(report("b"), 20.0) == (report("a"), report("b"))

    def test_old_words_do_not_count(self) -> None:
        witnesses = Witnesses()
        witnesses.hear(report("a"), 0.0)
        assert witnesses.hear(report("b"), WINDOW) == ()
        assert witnesses.hear(report("a"), WINDOW + 1) != ()

    def test_what_is_forgotten_does_not_count(self) -> None:
        witnesses = Witnesses()
        witnesses.hear(report("a"), 0.0)
        witnesses.forget(MALLORY)
        assert witnesses.hear(report("b"), 1.0) == ()


@define(eq=False)
class Cluster:
    """Nodes and CSUs on one virtual LAN."""

    clock: VirtualClock = field(factory=VirtualClock)
    network: Network = field(init=False)
    group: SimulatedGroup = field(init=False)
    nodes: dict[str, Host] = field(factory=dict)
    supervisors: dict[str, SupervisorHost] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        self.group = SimulatedGroup(self.network, random.Random(3))

    def node(self, name: str) -> Host:
        port = 7001 + len(self.nodes)
        config = NodeConfig(state=Path("/simulated"), name=name, listen=(f"127.0.0.1:{port}",), slots=2)
        entropy = SeededEntropy(random.Random(name))
        host = Host(name, self.clock, self.network, config, lambda _launch: ScriptPlan(), entropy, group=self.group)
        self.nodes[name] = host
        host.start()
        return host

    def csu(self, name: str = "csu", address: str = CSU) -> SupervisorHost:
        config = CsuConfig(state=Path("/simulated"), name=name, listen=(address,), history=60.0, history_interval=5.0)
        host = SupervisorHost(name, self.clock, self.network, config, SeededEntropy(random.Random(name)), self.group)
        self.supervisors[name] = host
        host.start()
        return host

    def result(self, deferred: Deferred[T]) -> T:
        return result_of(deferred, self.clock)

    def until(self, condition: Callable[[], bool], patience: float = 30.0) -> None:
        until(condition, self.clock, patience)

    def link(self, host: Host, address: str = CSU) -> Link:
        """A link of a node to the CSU, besides those that it makes itself."""
        links = PeerLinks(
            lambda there: self.network.endpoint(host.name, self.network.host_at(there)), self.clock, host.entropy
        )
        door: PeerDoor = host.node.peer_door
        links.open(door)
        return self.result(links.connect(address))

    def report(self, host: Host, address: str = CSU) -> bool:
        found = BanReport(MALLORY, "went on asking", NodeId(host.disk.node_id), host.name, 30)
        return self.result(self.link(host, address).report(found))

    def banned_at(self, host: Host | SupervisorHost) -> list[Ban]:
        door = host.unit if isinstance(host, SupervisorHost) else host.node.front_door
        return [ban for ban in door.bans() if ban.client == MALLORY]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def names(cluster: Cluster, host: SupervisorHost) -> dict[str, Standing]:
    return {each.announcement.name: each.standing for each in host.unit.cluster().members}


class TestSeeing:
    def test_it_and_the_nodes_see_each_other(self, cluster: Cluster) -> None:
        a, csu = cluster.node("a"), cluster.csu()
        cluster.clock.advance(3.0)
        assert names(cluster, csu) == {"a": Standing.ALIVE, "csu": Standing.ALIVE}
        seen_by_node = {each.announcement.name: each for each in a.node.cluster().members}
        assert seen_by_node["csu"].announcement.role is Role.CSU
        assert seen_by_node["csu"].announcement.tree is None

    def test_a_node_that_died_long_ago_is_still_in_its_registry_after_a_restart(self, cluster: Cluster) -> None:
        a, b, csu = cluster.node("a"), cluster.node("b"), cluster.csu()
        cluster.clock.advance(6.0)
        a.kill()
        cluster.result(b.stop())
        cluster.until(lambda: names(cluster, csu).get("a") is Standing.DEAD)
        cluster.clock.advance(6.0)
        csu.kill()
        csu.start()
        assert names(cluster, csu) == {"csu": Standing.ALIVE, "a": Standing.DEAD, "b": Standing.LEFT}
        assert [each.name for each in csu.unit.instances] == ["a", "b"]
        client = cluster.result(csu.connect("desk", "ann"))
        told = {each.announcement.name: each for each in cluster.result(client.cluster()).members}
        assert (told["a"].standing, told["a"].announcement.address) == (Standing.DEAD, "127.0.0.1:7001")
        assert told["a"].heard > 6.0
        cluster.clock.advance(70.0)
        assert names(cluster, csu) == {"csu": Standing.ALIVE}

    def test_it_keeps_the_history_of_the_load(self, cluster: Cluster) -> None:
        cluster.node("a")
        cluster.node("b")
        csu = cluster.csu()
        cluster.clock.advance(21.0)
        samples = cluster.result(csu.unit.history(60.0))
        assert len(samples) == 8
        assert {(each.node, each.slots, each.free, each.waiting) for each in samples} == {
            ("a", 2, 2, 0),
            ("b", 2, 2, 0),
        }
        assert [each.at for each in samples] == sorted(each.at for each in samples)
        cluster.result(csu.stop())
        csu.start()
        assert cluster.result(csu.unit.history(60.0)) == samples
        assert len(cluster.result(csu.unit.history(5.0))) == 2
        cluster.clock.advance(130.0)
        assert len(csu.disk.samples) <= 2 * (60 + 60) / 5 + 2

    def test_a_disk_that_is_full_costs_samples_only(
        self, cluster: Cluster, expected_failures: Callable[..., object]
    ) -> None:
        cluster.node("a")
        csu = cluster.csu()
        csu.disk.full = True
        cluster.clock.advance(12.0)
        expected_failures()
        csu.disk.full = False
        cluster.clock.advance(6.0)
        assert len(csu.disk.samples) == 1
        assert len(csu.disk.instances) == 1

    def test_it_says_goodbye(self, cluster: Cluster) -> None:
        a, csu = cluster.node("a"), cluster.csu()
        cluster.clock.advance(3.0)
        cluster.result(csu.stop())
        assert not csu.up
        [other] = [each for each in a.node.cluster().members if each.announcement.name == "csu"]
        assert other.standing is Standing.LEFT

    def test_its_boots_can_be_told_apart(self, cluster: Cluster) -> None:
        csu = cluster.csu()
        first = csu.unit.describe()
        csu.kill()
        csu.start()
        second = csu.unit.describe()
        assert (first.role, first.slots, first.node_id) == ("csu", 0, second.node_id)
        assert first.boot_id < second.boot_id


class TestBanning:
    def test_two_nodes_make_a_ban_of_the_cluster(self, cluster: Cluster) -> None:
        nodes, csu = [cluster.node(name) for name in "abc"], cluster.csu()
        cluster.clock.advance(3.0)
        assert [cluster.report(nodes[0]) for _ in range(3)] == [False] * 3
        assert cluster.banned_at(csu) == []
        assert cluster.report(nodes[1]) is True
        [ban] = cluster.banned_at(csu)
        assert (ban.by, ban.reason, ban.term) == ("csu", "went on asking", REPORTED_TERM)
        assert [each[:1] for each in ban.reporters] == ["a", "b"]
        cluster.clock.advance(2.0)
        assert all(cluster.banned_at(host) for host in nodes), "not known everywhere within two intervals"
        assert cluster.report(nodes[2]) is True, "it is one already"
        link = cluster.link(nodes[2])
        checked = cluster.result(link.check_banned("mallory"))
        assert checked is not None and checked.client == MALLORY
        assert cluster.result(link.check_banned("ann")) is None

    def test_a_lifted_ban_needs_two_words_again(self, cluster: Cluster) -> None:
        nodes, csu = [cluster.node(name) for name in "ab"], cluster.csu()
        cluster.clock.advance(3.0)
        for node in nodes:
            cluster.report(node)
        cluster.result(csu.unit.lift_ban(ROOT, MALLORY))
        assert cluster.report(nodes[0]) is False
        assert cluster.banned_at(csu) == []
        cluster.clock.advance(2.0)
        assert cluster.banned_at(nodes[0]) == cluster.banned_at(nodes[1]) == []

    def test_an_administrator_bans_at_any_instance(self, cluster: Cluster) -> None:
        a, b, csu = cluster.node("a"), cluster.node("b"), cluster.csu()
        cluster.clock.advance(3.0)
        cluster.result(csu.unit.ban(ROOT, MALLORY, "test", 3600.0))
        cluster.clock.advance(2.0)
        assert cluster.banned_at(a) and cluster.banned_at(b)
        cluster.result(a.node.front_door.lift_ban(ROOT, MALLORY))
        cluster.clock.advance(2.0)
        assert cluster.banned_at(csu) == []
        with pytest.raises(NoSuchBan):
            csu.unit.lift_ban(ROOT, MALLORY)

    def test_bans_outlive_the_csu_and_several_csus_agree(self, cluster: Cluster) -> None:
        a = cluster.node("a")
        one, two = cluster.csu("one", "127.0.0.1:7008"), cluster.csu("two")
        cluster.clock.advance(3.0)
        cluster.result(one.unit.ban(ROOT, MALLORY, "test", 3600.0))
        cluster.clock.advance(3.0)
        assert cluster.banned_at(two)
        one.kill()
        cluster.clock.advance(10.0)
        assert cluster.banned_at(a)
        one.start()
        assert cluster.banned_at(one)
        late = cluster.csu("late", "127.0.0.1:7007")
        cluster.clock.advance(3.0)
        assert cluster.banned_at(late)

    def test_a_node_reports_whom_it_banned_as_soon_as_there_is_a_csu(self, cluster: Cluster) -> None:
        nodes = [cluster.node(name) for name in "ab"]
        for node in nodes:
            with pytest.raises(Banned):
                for _ in range(20):
                    node.node.front_door.malformed(MALLORY)
        cluster.clock.advance(5.0)
        csu = cluster.csu()
        cluster.until(lambda: bool(cluster.banned_at(csu)))

    def test_nobody_reports_in_the_name_of_others(self, cluster: Cluster) -> None:
        a, csu = cluster.node("a"), cluster.csu()
        link = cluster.link(a)
        with pytest.raises(NotPermitted, match="in the name of"):
            cluster.result(link.report(report("b")))
        bad = evolve(report(), reporter=NodeId(a.disk.node_id), reason="")
        with pytest.raises(InvalidArgument, match="reason"):
            cluster.result(link.report(bad))
        other = cluster.csu("other", "127.0.0.1:7008")
        cluster.clock.advance(3.0)
        assert cluster.banned_at(csu) == cluster.banned_at(other) == []


class TestNoJobs:
    def test_a_client_is_sent_to_a_node(self, cluster: Cluster) -> None:
        cluster.node("a")
        csu = cluster.csu()
        cluster.clock.advance(3.0)
        client = cluster.result(csu.connect("desk", "ann"))
        with pytest.raises(NotPermitted) as raised:
            cluster.result(client.getScriptJobStatus(JOB))
        assert str(raised.value) == "csu is a CSU and takes no jobs; ask a node, such as a at 127.0.0.1:7001"
        assert [ban.client for ban in cluster.result(client.bans())] == []

    def test_peers_get_neither_work_nor_a_place_in_the_tree(self, cluster: Cluster) -> None:
        a = cluster.node("a")
        cluster.csu()
        link = cluster.link(a)
        assert cluster.result(link.ping(1.0)).capacity == Capacity(slots=0, free=0)
        assert cluster.result(link.ask_for_work(Capacity(2, 2))) == 0
        answer = cluster.result(link.attach(NodeId(a.disk.node_id), 0))
        assert not answer.accepted
        assert "not part of the tree" in answer.why
        with pytest.raises(NoSuchJob, match="CSU"):
            cluster.result(link.follow(AttemptId(JOB, 1, 1), {}, None))  # type: ignore[arg-type]
        cluster.result(link.detach())
        cluster.result(link.tell_path(1, [NodeId(a.disk.node_id)]))

    def test_a_flood_is_kept_out_of_the_csu_alone(self, cluster: Cluster) -> None:
        a, csu = cluster.node("a"), cluster.csu()
        with pytest.raises(Banned):
            for _ in range(20):
                csu.unit.malformed(MALLORY)
        with pytest.raises(Banned):
            csu.unit.admit(MALLORY, 100)
        assert csu.unit.admit(ROOT, 100) == 0.0
        cluster.clock.advance(3.0)
        assert cluster.banned_at(a) == []


def test_without_an_address_it_serves_this_machine_alone(cluster: Cluster) -> None:
    cluster.node("a")
    config = CsuConfig(state=Path("/simulated"), name="alone")
    host = SupervisorHost(
        "alone", cluster.clock, cluster.network, config, SeededEntropy(random.Random(1)), cluster.group
    )
    host.start()
    cluster.clock.advance(5.0)
    assert names(cluster, host) == {"alone": Standing.ALIVE}
    cluster.result(host.unit.ban(ROOT, MALLORY, "test", 60.0))
    cluster.result(host.stop())
    host.start()
    assert cluster.banned_at(host)
