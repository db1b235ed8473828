"""Clients outlive their node: new work goes to another one, questions about a job never do."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from cloudmytask.addresses import Address
from cloudmytask.cli.reach import LEARN_TIMEOUT, habits
from cloudmytask.cli.terminal.console import Console
from cloudmytask.client.connection import STAND_IN_PATIENCE, Connection, Connector
from cloudmytask.client.known_nodes import FRESH, KnownNode, KnownNodes
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.job_id import job_id
from cloudmytask.model.errors import ConnectionInterrupted, NoNode, NoSuchJob, RequestTimeout
from cloudmytask.model.job import ClientId
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.commands import Hello
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary
from tests.virtual import FOREVER
from tests.virtual_cluster import Company

T = TypeVar("T")


@define(eq=False)
class Ann:
    """A client on a machine of her own, who knows node a."""

    company: Company
    failover: bool = True
    asked: list[str] = field(factory=list)
    """The hosts that she tried to connect to, in order."""
    connector: Connector = field(init=False)
    session: NodeSession = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connector = Connector(self._endpoint, self.company.clock, "ann")
        known = KnownNodes(None, self.company.clock.seconds) if self.failover else None
        self.session = NodeSession(self.connector, [address("a")], known)

    def _endpoint(self, address: Address) -> IStreamClientEndpoint:
        host = self.company.network.host_at(address.text)
        self.asked.append(host)
        return self.company.network.endpoint("ann", host)

    def do(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        return self.company.result(Deferred.fromCoroutine(work))

    def begin(self, *plans: ScriptPlan, key: str = "k", **fields: Any) -> Deferred[tuple[JobStatus, Address]]:
        """Submit, without waiting for the answer."""
        spec, source = self.company.spec(*plans, **fields)
        once = bool(fields.get("at_most_once"))
        work = self.session.submit(lambda node: node.submit(spec, source, key=key), once=once)
        return Deferred.fromCoroutine(work)

    def submit(self, *plans: ScriptPlan, **fields: Any) -> tuple[JobStatus, str]:
        """A job, and the host that has it."""
        job, home = self.company.result(self.begin(*plans, **fields))
        return job, self.company.network.host_at(home.text)

    def node(self) -> str:
        """The name of the node that she talks to."""
        return str(self.do(self.session.ask(lambda node: node.describe()))["name"])

    def settled(self) -> None:
        """Let what goes on in the background end."""
        self.company.clock.advance(0.1)

    def sees_die(self, *hosts: str) -> None:
        """Hosts die, and her connections are known to be lost."""
        for host in hosts:
            self.company.hosts[host].kill()
        self.settled()


def address(host: str) -> Address:
    return Address.parse(f"127.0.0.{ord(host) - ord('a') + 1}:7001", "the test")


@pytest.fixture
def company() -> Company:
    company = Company(3)
    company.acquainted()
    return company


@pytest.fixture
def ann(company: Company) -> Ann:
    ann = Ann(company)
    assert ann.node() == "a"
    ann.settled()
    return ann


# The library


def test_new_work_goes_to_another_node_and_stays_with_it(company: Company, ann: Ann) -> None:
    ann.sees_die("a")
    job, home = ann.submit()
    assert home in ("b", "c")
    assert ann.submit(key="k2")[1] == home
    assert ann.node() == home
    assert company.hosts[home].disk.jobs[job.id].owner.name == home


def test_the_named_node_is_tried_first_whenever_a_connection_is_made(company: Company, ann: Ann) -> None:
    ann.sees_die("a")
    _, home = ann.submit()
    company.hosts["a"].start()
    ann.sees_die(home)
    assert ann.submit(key="k2")[1] == "a"


def test_the_stand_in_dies_too_and_is_only_found_dead_when_it_is_asked(company: Company, ann: Ann) -> None:
    company.hosts["a"].kill()
    _, home = ann.submit()
    ann.settled()
    company.hosts[home].kill()
    assert {ann.submit(key="k2")[1], home} == {"b", "c"}


def test_a_job_is_asked_for_where_it_was_accepted(company: Company, ann: Ann) -> None:
    job, home = ann.submit(ScriptPlan(duration=1.0))
    assert home == "a"
    ann.sees_die("a")
    ann.submit(key="k2")
    with pytest.raises(NoNode):
        ann.do(ann.session.ask_about(lambda node: node.getScriptJobStatus(job.id), address("a")))
    company.hosts["a"].start()
    ended, _ = ann.do(ann.session.ask_about(lambda node: node.wait(job.id), address("a")))
    assert ended.id == job.id


def test_a_job_that_the_stand_in_does_not_know_may_be_with_the_dead_node(company: Company, ann: Ann) -> None:
    job, _ = ann.submit()
    ann.sees_die("a")
    assert ann.node() != "a"

    def find() -> tuple[JobStatus, Address]:
        return ann.do(ann.session.ask_about(lambda node: node.getScriptJobStatus(job.id)))

    with pytest.raises(NoNode, match=r"127\.0\.0\.1:7001 does not answer.*goes on when that node is back"):
        find()
    company.hosts["a"].start()
    found, home = find()
    assert (found.id, home.key) == (job.id, address("a").key)


def test_a_job_that_no_node_knows(company: Company, ann: Ann) -> None:
    ann.sees_die("a")
    ann.node()
    company.hosts["a"].start()
    with pytest.raises(NoSuchJob):
        ann.do(ann.session.ask_about(lambda node: node.getScriptJobStatus("0" * 17)))


def _lost_before_the_answer(company: Company, submitted: Deferred[Any]) -> None:
    """Node a dies when it has the submission and has not answered yet."""
    company.until(lambda: bool(company.hosts["a"].node._ledger._entries))
    assert not submitted.called
    company.hosts["a"].kill()


def test_a_submission_that_was_not_acknowledged_goes_to_another_node_under_its_key(company: Company, ann: Ann) -> None:
    submitted = ann.begin(FOREVER)
    _lost_before_the_answer(company, submitted)
    job, home = company.result(submitted)
    assert company.network.host_at(home.text) in ("b", "c")
    assert job.id == job_id(ClientId("ann"), "k")


def test_a_node_that_is_only_restarted_keeps_its_work(company: Company, ann: Ann) -> None:
    submitted = ann.begin()
    _lost_before_the_answer(company, submitted)
    company.clock.callLater(1.0, company.hosts["a"].start)
    _, home = company.result(submitted)
    assert home.key == address("a").key
    assert not company.hosts["b"].disk.jobs and not company.hosts["c"].disk.jobs


def test_what_must_run_at_most_once_is_not_given_to_a_second_node(company: Company, ann: Ann) -> None:
    submitted = ann.begin(at_most_once=True)
    _lost_before_the_answer(company, submitted)
    with pytest.raises(ConnectionInterrupted):
        company.result(submitted)
    assert not company.hosts["b"].disk.jobs and not company.hosts["c"].disk.jobs
    assert ann.submit(at_most_once=True, key="k2")[1] in ("b", "c"), "nobody can have that one"


def test_what_must_run_at_most_once_is_given_again_to_the_same_node(company: Company, ann: Ann) -> None:
    submitted = ann.begin(at_most_once=True)
    _lost_before_the_answer(company, submitted)
    company.clock.callLater(1.0, company.hosts["a"].start)
    _, home = company.result(submitted)
    assert home.key == address("a").key


def test_a_draining_node_takes_no_new_work(company: Company, ann: Ann) -> None:
    job, _ = ann.submit(ScriptPlan(duration=30.0), local=True)
    company.reach(company.connect("a"), job, job.state.RUNNING)
    stopped = company.hosts["a"].stop()
    assert ann.submit(key="k2", at_most_once=True)[1] in ("b", "c")
    company.result(stopped)


def test_without_failover_there_is_one_node(company: Company) -> None:
    ann = Ann(company, failover=False)
    ann.submit()
    ann.sees_die("a")
    with pytest.raises(NoNode):
        ann.submit(key="k2")
    submitted = Deferred.fromCoroutine(ann.session.ask(NodeClient.describe))
    with pytest.raises(NoNode):
        company.result(submitted)
    assert set(ann.asked) == {"a"}


def test_without_failover_a_lost_submission_is_tried_again_at_its_node(company: Company) -> None:
    ann = Ann(company, failover=False)
    submitted = ann.begin()
    _lost_before_the_answer(company, submitted)
    with pytest.raises(ConnectionInterrupted):
        company.result(submitted)
    assert set(ann.asked) == {"a"}


def test_nobody_is_left(company: Company, ann: Ann) -> None:
    ann.sees_die("a", "b", "c")
    with pytest.raises(NoNode, match=r"the test 127\.0\.0\.1:7001: "):
        ann.submit()
    assert set(ann.asked) == {"a", "b", "c"}


def test_calls_at_the_same_time_move_together(company: Company, ann: Ann) -> None:
    both = [ann.begin(FOREVER, key=key) for key in ("k1", "k2")]
    company.until(lambda: len(company.hosts["a"].node._ledger._entries) == 2)
    ann.sees_die("a")
    (_, one), (_, other) = (company.result(each) for each in both)
    assert one.key == other.key != address("a").key


def test_nodes_that_come_later_are_learned_of(company: Company, ann: Ann) -> None:
    company.hosts["b"].kill()
    company.until(lambda: company.alive("a") == ["a", "c"])
    company.clock.advance(FRESH)
    ann.node()
    ann.settled()
    company.hosts["b"].start()
    company.acquainted()
    company.clock.advance(FRESH)
    ann.node()
    ann.settled()
    ann.sees_die("a", "c")
    assert ann.submit()[1] == "b"


def test_closing_forgets_no_node(company: Company, ann: Ann) -> None:
    ann.session.close()
    ann.sees_die("a")
    assert ann.submit()[1] in ("b", "c")


# Stand-ins


def test_whoever_answers_at_a_nodes_address_must_be_that_node(company: Company, ann: Ann) -> None:
    def stand_in(node_id: str) -> Connection | None:
        other = KnownNode("b", address("b").text, node_id)
        return ann.do(ann.connector.to_stand_in([other], address("a"), set()))

    assert stand_in("f" * 32) is None
    reached = stand_in(company.hosts["b"].disk.node_id)
    assert reached is not None and reached.name == "b"


def test_stand_ins_that_do_not_answer_or_make_sense_cost_a_moment(company: Company, ann: Ann) -> None:
    mute = Vocabulary({Hello: lambda **_: Deferred()})
    company.network.listen("mute", Factory.forProtocol(lambda: GuardedAMP(mute, company.clock)))
    company.network.listen("other", Factory.forProtocol(lambda: GuardedAMP(Vocabulary({}), company.clock)))
    company.network.paths.silence("far")
    peers = [KnownNode(host, f"{host}:1", "f" * 32) for host in ("other", "mute", "far")]
    for each in peers:
        company.network.name(each.place.text, each.name)
    began = company.clock.seconds()
    assert ann.do(ann.connector.to_stand_in(peers, address("a"), set())) is None
    assert company.clock.seconds() - began <= len(peers) * STAND_IN_PATIENCE + 0.1


# The command line


@define(eq=False)
class Verb:
    """What ``cmt`` would do against node a."""

    ann: Ann
    file: KnownNodes
    node: NodeSession = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.node = NodeSession(self.ann.connector, [address("a")], self.file, habits(Console()))
        self.ann.do(self.node.reach())

    def learn(self) -> None:
        self.ann.do(self.node.learn(LEARN_TIMEOUT))

    def submit(self, *plans: ScriptPlan, once: bool = False) -> Deferred[JobStatus]:
        spec, source = self.ann.company.spec(*plans, at_most_once=once)
        work = self.node.submit(lambda node: node.submit(spec, source, key="k"), once=once)
        return Deferred.fromCoroutine(work).addCallback(lambda found: found[0])


@pytest.fixture
def file(tmp_path: Path, ann: Ann) -> KnownNodes:
    """As an earlier verb has left it."""
    file = KnownNodes(tmp_path / "nodes.json")
    Verb(ann, file).learn()
    assert (tmp_path / "nodes.json").exists()
    return file


def test_a_verb_hands_new_work_to_another_node(
    company: Company, ann: Ann, file: KnownNodes, capfd: pytest.CaptureFixture[str]
) -> None:
    verb = Verb(ann, file)
    submitted = verb.submit(FOREVER)
    _lost_before_the_answer(company, submitted)
    job = company.result(submitted)
    [name] = [name for name in "bc" if job.id in company.hosts[name].disk.jobs]
    said = f"cmt: 127.0.0.1:7001 does not answer; talking to {name} at {address(name).text}\n"
    assert capfd.readouterr() == ("", said)
    assert verb.node.instead_of == address("a")
    company.hosts[name].kill()
    with pytest.raises(
        ConnectionInterrupted, match=f"job {job.id} is kept there .*: cmt --via {address(name).text} wait {job.id}$"
    ):
        ann.do(verb.node.ask(lambda node: node.wait(job.id), about=job.id))
    assert capfd.readouterr() == ("", ""), "a question about a job moves to no other node"


def test_a_verb_leaves_what_must_run_at_most_once(company: Company, ann: Ann, file: KnownNodes) -> None:
    submitted = Verb(ann, file).submit(once=True)
    _lost_before_the_answer(company, submitted)
    with pytest.raises(ConnectionInterrupted):
        company.result(submitted)
    assert not company.hosts["b"].disk.jobs and not company.hosts["c"].disk.jobs


def test_a_verb_moves_from_a_draining_node(
    company: Company, ann: Ann, file: KnownNodes, capfd: pytest.CaptureFixture[str]
) -> None:
    running, _ = ann.submit(ScriptPlan(duration=30.0), local=True, key="k0")
    company.reach(company.connect("a"), running, running.state.RUNNING)
    verb = Verb(ann, file)
    stopped = company.hosts["a"].stop()
    company.result(verb.submit(once=True))
    assert "127.0.0.1:7001 takes no new work; talking to " in capfd.readouterr().err
    company.result(stopped)


def test_a_question_that_costs_every_connection_is_not_carried_to_other_nodes(ann: Ann, file: KnownNodes) -> None:
    verb = Verb(ann, file)
    verb.node.habits = evolve(verb.node.habits, patience=(0.0,))
    ann.asked.clear()

    def poison(node: NodeClient) -> Deferred[JobStatus]:
        node.close()
        return node.getScriptJobStatus("0" * 17)

    with pytest.raises(ConnectionInterrupted, match="20 times"):
        ann.do(verb.node.submit(poison, once=False))
    assert set(ann.asked) == {"a"}


def test_the_stand_in_that_has_our_jobs_is_remembered_first(company: Company, ann: Ann, file: KnownNodes) -> None:
    before = file.recall(address("a"))
    assert before is not None
    first, second = before.nodes
    company.network.cut_off(company.network.host_at(first.place.text))
    verb = Verb(ann, file)
    submitted = verb.submit(FOREVER)
    _lost_before_the_answer(company, submitted)
    company.result(submitted)
    assert verb.node.address == second.place
    verb.learn()
    after = file.recall(address("a"))
    assert after is not None and after.nodes[0] == second


def test_what_is_fresh_is_not_asked_again(company: Company, ann: Ann, file: KnownNodes) -> None:
    verb = Verb(ann, file)
    messages = company.network.messages
    verb.learn()
    assert company.network.messages == messages


def test_a_node_that_does_not_tell_in_time_is_not_waited_for(company: Company, ann: Ann, tmp_path: Path) -> None:
    verb = Verb(ann, KnownNodes(tmp_path / "nodes.json"))
    company.network.latency = lambda _here, _there: 0.2
    began = company.clock.seconds()
    verb.learn()
    assert company.clock.seconds() - began < 0.05
    assert not (tmp_path / "nodes.json").exists()


def test_a_node_that_hangs_is_left_for_another(company: Company, ann: Ann, file: KnownNodes) -> None:
    verb = Verb(ann, file)

    def hang(node: NodeClient) -> Deferred[JobStatus]:
        late: Deferred[JobStatus] = Deferred()
        if str(node.node["name"]) == "a":
            late.errback(RequestTimeout("SubmitJob: no answer within 30 s"))
            return late
        spec, source = company.spec()
        return node.submit(spec, source, key="k")

    job, _ = ann.do(verb.node.submit(hang, once=False))
    assert any(job.id in company.hosts[name].disk.jobs for name in "bc")
    assert verb.node.instead_of == address("a")
