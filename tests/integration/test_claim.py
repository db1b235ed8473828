"""The claim on state directory and sockets: exclusive, private, and given back."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudmytask.config import NodeConfig
from cloudmytask.model.errors import StartFailed
from cloudmytask.service import claim as module
from cloudmytask.service.claim import InstanceClaim, claim

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory that belongs to somebody else")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@contextmanager
def held(config: NodeConfig) -> Iterator[InstanceClaim]:
    made = claim(config)
    try:
        yield made
    finally:
        made.release()


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig(state=tmp_path / "below" / "state")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_claim_makes_a_private_directory_with_a_private_socket(config: NodeConfig) -> None:
    with held(config):
        assert (mode(config.state), mode(config.socket), mode(config.state / "lock")) == (0o700, 0o600, 0o600)
        assert (config.state / "lock").read_text() == f"{os.getpid()}\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(config.socket))


def test_release_gives_everything_back_and_may_be_repeated(config: NodeConfig) -> None:
    made = claim(config)
    made.release()
    made.release()
    assert not config.socket.exists()
    with held(config):
        pass


def test_a_claim_that_is_released_leaves_the_lock_only(config: NodeConfig) -> None:
    claim(config).release()
    assert [each.name for each in config.state.iterdir()] == ["lock"]
    with held(config):
        pass


def test_a_second_node_is_refused_and_told_who_holds_it(config: NodeConfig) -> None:
    with held(config):
        with pytest.raises(StartFailed, match=rf"is in use by another node \(process {os.getpid()}\)"):
            claim(config)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(config.socket))


def test_a_killed_node_leaves_nothing_in_the_way(config: NodeConfig) -> None:
    program = (
        "import sys, pathlib\n"
        "from cloudmytask.config import NodeConfig\n"
        "from cloudmytask.service.claim import claim\n"
        "held = claim(NodeConfig(state=pathlib.Path(sys.argv[1])))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(config.state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StartFailed, match=rf"process {holder.pid}\)"):
            claim(config)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert config.socket.is_socket()
    with held(config), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(config.socket))


def test_a_directory_that_others_may_only_read_is_made_private(config: NodeConfig) -> None:
    config.state.mkdir(parents=True)
    config.state.chmod(0o755)
    with held(config):
        assert mode(config.state) == 0o700


def test_a_directory_of_other_things_keeps_its_permissions(config: NodeConfig) -> None:
    config.state.mkdir(parents=True)
    config.state.chmod(0o755)
    (config.state / "thesis.tex").touch()
    with pytest.raises(StartFailed, match="holds other things than a node's state"):
        claim(config)
    assert mode(config.state) == 0o755
    (config.state / "lock").touch()
    claim(config).release()
    assert mode(config.state) == 0o700


@pytest.mark.parametrize("others", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(config: NodeConfig, others: int) -> None:
    config.state.mkdir(parents=True)
    config.state.chmod(others)
    with pytest.raises(StartFailed, match="Others may write to the state directory"):
        claim(config)
    assert mode(config.state) == others


def test_a_symbolic_link_is_refused(config: NodeConfig, tmp_path: Path) -> None:
    config.state.parent.mkdir()
    config.state.symlink_to(tmp_path)
    with pytest.raises(StartFailed, match="is a symbolic link"):
        claim(config)


@pytest.mark.parametrize("place", ["state", "parent"])
def test_a_file_in_the_way_is_refused(config: NodeConfig, place: str) -> None:
    blocked = config.state if place == "state" else config.state.parent
    blocked.parent.mkdir(exist_ok=True)
    blocked.touch()
    with pytest.raises(StartFailed, match="a file is in its place"):
        claim(config)


@as_root
def test_a_foreign_directory_is_refused(config: NodeConfig) -> None:
    config.state.mkdir(parents=True)
    os.chown(config.state, 12_345, -1)
    with pytest.raises(StartFailed, match=r"belongs to another user \(uid 12345"):
        claim(config)


@not_root
def test_an_unwritable_directory_is_refused(config: NodeConfig) -> None:
    config.state.mkdir(parents=True, mode=0o500)
    with pytest.raises(StartFailed, match="cannot be written to: Permission denied"):
        claim(config)


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(StartFailed, match="cannot be made"):
        claim(NodeConfig(state=Path("/proc/cloudmytask")))


def test_a_lock_that_is_a_link_is_not_followed(config: NodeConfig, tmp_path: Path) -> None:
    config.state.mkdir(parents=True, mode=0o700)
    (tmp_path / "precious").write_text("kept")
    (config.state / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StartFailed, match="cannot be written to"):
        claim(config)
    assert (tmp_path / "precious").read_text() == "kept"


def test_something_else_at_the_sockets_name_is_kept(config: NodeConfig) -> None:
    config.state.mkdir(parents=True, mode=0o700)
    config.socket.write_text("kept")
    with pytest.raises(StartFailed, match="something else has its name"):
        claim(config)
    assert config.socket.read_text() == "kept"


def test_tcp_addresses_are_listened_on(config: NodeConfig) -> None:
    both = NodeConfig(state=config.state, listen=("localhost:0", "127.0.0.2:0"))
    with held(both) as made:
        assert [each.getsockname()[0] for each in made.tcp] == ["127.0.0.1", "127.0.0.2"]
        for each in made.tcp:
            socket.create_connection(each.getsockname()).close()


@pytest.mark.skipif(not socket.has_ipv6, reason="this host has no IPv6")
def test_ipv6_loopback_is_listened_on(config: NodeConfig) -> None:
    with held(NodeConfig(state=config.state, listen=("[::1]:0",))) as made:
        socket.create_connection(made.tcp[0].getsockname()[:2]).close()


def test_a_busy_port_is_named_and_nothing_stays_held(config: NodeConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartFailed, match=rf"127\.0\.0\.1:{port} cannot be listened on: Address already in use"):
            claim(NodeConfig(state=config.state, listen=("127.0.0.1:0", f"127.0.0.1:{port}")))
    assert not config.socket.exists()
    with held(config):
        pass


def test_nothing_stays_held_when_the_socket_cannot_be_made(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 2**40)
    with pytest.raises(OverflowError):
        claim(config)
    monkeypatch.undo()
    assert not config.socket.exists()
    with held(config):
        pass
