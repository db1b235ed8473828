"""Who may do what: decided in one place, declared on each verb, for every command."""

from __future__ import annotations

import os
import socket
from itertools import product
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport

from cloudmytask.api.client_api import ClientApi
from cloudmytask.api.principals import check_allowed, client_principal, peer_principal
from cloudmytask.csu.door import SupervisorDoor
from cloudmytask.model.access import AccessRole, Principal, Proof, ScriptCaller, allowed_roles
from cloudmytask.model.cluster import BootId, NodeId, PeerIdentity, Role
from cloudmytask.model.errors import InvalidArgument, NotPermitted
from cloudmytask.model.job import ClientId
from cloudmytask.net.client_calls import CALLS
from cloudmytask.net.credentials import peer_uid
from cloudmytask.net.peer_link import ANSWERS
from cloudmytask.node.peer_door import NodePeerDoor
from cloudmytask.wire import commands, peer_commands

ADMIN_ONLY = {commands.AddBan, commands.LiftBan}


@pytest.mark.parametrize(
    ("command", "role"), list(product(CALLS, AccessRole)), ids=lambda each: getattr(each, "__name__", str(each))
)
def test_each_command_may_be_called_by_its_roles_alone(command: type[commands.NodeCommand], role: AccessRole) -> None:
    verb = getattr(ClientApi, CALLS[command].verb)
    expected = {AccessRole.ADMIN} if command in ADMIN_ONLY else {AccessRole.CLIENT}
    assert allowed_roles(verb) == expected
    principal = Principal(ClientId("x"), frozenset({role}), Proof.NETWORK, "10.0.0.5")
    if role in expected:
        check_allowed(principal, verb)
    else:
        with pytest.raises(NotPermitted):
            check_allowed(principal, verb)


def test_every_command_of_clients_is_in_the_table() -> None:
    to_client = {commands.JobChanged, commands.JobEvents, commands.OutputData, commands.OutputEnded}
    spoken = {
        each
        for each in vars(commands).values()
        if isinstance(each, type) and issubclass(each, commands.NodeCommand) and each is not commands.NodeCommand
    }
    assert set(CALLS) == spoken - to_client - {commands.Hello}


def test_what_declares_no_role_is_for_nobody() -> None:
    everything = Principal(ClientId("x"), frozenset(AccessRole), Proof.SOCKET)
    with pytest.raises(NotPermitted):
        check_allowed(everything, lambda: None)


def test_how_a_client_came_makes_its_roles() -> None:
    socket = client_principal("ann", UNIXAddress(None))
    loopback = client_principal("ann", IPv4Address("TCP", "127.0.0.1", 5))
    network = client_principal("ann", IPv4Address("TCP", "10.0.0.5", 5))
    assert [each.proof for each in (socket, loopback, network)] == [Proof.SOCKET, Proof.LOOPBACK, Proof.NETWORK]
    assert [AccessRole.ADMIN in each.roles for each in (socket, loopback, network)] == [True, True, False]
    assert network.where == "10.0.0.5"
    with pytest.raises(InvalidArgument):
        client_principal("no such client", UNIXAddress(None))


def test_the_kernel_says_who_came_over_a_unix_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs, socket.socket() as network:
        assert peer_uid(SimpleNamespace(getHandle=lambda: ours)) == os.getuid()
        assert peer_uid(SimpleNamespace(getHandle=lambda: network)) is None
    assert peer_uid(StringTransport()) is None
    assert client_principal("ann", UNIXAddress(None), 7).uid == 7
    assert client_principal("ann", IPv4Address("TCP", "127.0.0.1", 5), 7).uid is None, "of a unix socket only"


JOBS = {
    peer_commands.OfferJob,
    peer_commands.HandOverJob,
    peer_commands.FollowAttempt,
    peer_commands.StopAttempt,
    peer_commands.AskForWork,
}


@pytest.mark.parametrize("command", [each for each in ANSWERS if isinstance(ANSWERS[each].method, str)])
@pytest.mark.parametrize("door", [NodePeerDoor, SupervisorDoor])
def test_jobs_come_from_nodes_only_and_no_client_calls_what_a_peer_may(
    command: type[commands.NodeCommand], door: type
) -> None:
    method = ANSWERS[command].method
    assert isinstance(method, str)
    roles = allowed_roles(getattr(door, method))
    assert AccessRole.NODE in roles and not roles & {AccessRole.CLIENT, AccessRole.ADMIN}
    if command in JOBS and door is NodePeerDoor:
        assert roles == {AccessRole.NODE}
    if command is peer_commands.AddToBlackListRequest and door is SupervisorDoor:
        assert roles == {AccessRole.NODE}


def test_every_command_of_peers_is_in_the_table() -> None:
    introduction = {peer_commands.PeerHello, peer_commands.ProvePeer}
    uploads = {commands.BeginUpload, commands.UploadPiece, commands.CommitUpload, commands.AbortUpload}
    spoken = {
        each
        for each in vars(peer_commands).values()
        if isinstance(each, type) and issubclass(each, commands.NodeCommand) and each is not commands.NodeCommand
    }
    assert set(ANSWERS) == (spoken - introduction) | uploads


def test_a_peer_is_what_its_introduction_proved() -> None:
    identity = PeerIdentity("cmt", Role.CSU, NodeId("a" * 32), BootId("0" * 16), "csu", "10.0.0.9:7009")
    csu = peer_principal(identity, keyed=True)
    assert (set(csu.roles), csu.proof) == ({AccessRole.CSU}, Proof.CLUSTER_KEY)
    assert peer_principal(identity, keyed=False).proof is Proof.NETWORK
    with pytest.raises(NotPermitted, match="csu is a csu; only nodes hand jobs over"):
        check_allowed(csu, NodePeerDoor.offered)


def test_a_script_is_its_jobs_client_and_no_administrator() -> None:
    script = client_principal("bob", UNIXAddress(None), 7, ScriptCaller(ClientId("ann")))
    assert (script.name, set(script.roles), script.script) == ("ann", {AccessRole.CLIENT}, True)
    with pytest.raises(NotPermitted, match="this is a script of ann's"):
        check_allowed(script, ClientApi.ban)
    with pytest.raises(NotPermitted, match="belongs to a script"):
        client_principal("bob", UNIXAddress(None), 7, ScriptCaller())
