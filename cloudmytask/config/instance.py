"""``InstanceConfig``: the options that every instance has, node or CSU: who it is, where it listens, whom it meets.

Invariant: nothing beyond loopback is listened on, joined or announced unless ``insecure_lan`` says so; what is
announced can be reached.
"""

from __future__ import annotations

import os
import re
import socket as sockets
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from attrs import frozen

from cloudmytask.addresses import (
    IpAddress,
    check_loopback,
    is_loopback,
    join_address,
    split_group,
    split_listen,
)
from cloudmytask.config.kinds import ADDRESSES, BIT_RATE, BOOLEAN, DURATION, GROUP, IPV4, LOG, NAME, PATH, PEERS
from cloudmytask.config.options import Option, option, option_of
from cloudmytask.directories import default_state, socket_path
from cloudmytask.model.cluster import Role
from cloudmytask.model.errors import ConfigurationError

SOCKET_PATH_MAX = 107
"""Bytes that ``sun_path`` holds before its terminating NUL; see unix(7)."""
DEFAULT_GROUP = "239.255.77.77:7700"
"""Of the administratively scoped addresses (RFC 2365), which no router forwards."""


def state_option(directory: str, sentence: str) -> Any:
    """Declare the field ``state``, whose default is called ``directory``."""
    return option(
        PATH,
        sentence,
        said=f"$XDG_STATE_HOME/{directory}, as a rule ~/.local/state/{directory}; for root /var/lib/{directory}",
        example=f'"/var/lib/{directory}"',
        factory=lambda: default_state(directory=directory),
    )


def in_order(_class: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Put ``state`` first and ``log`` last; an attrs ``field_transformer`` for subclasses."""
    return sorted(fields, key=lambda each: (each.name != "state", each.name == "log"))


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", sockets.gethostname())[:64] or "node"


@frozen(kw_only=True)
class InstanceConfig:
    """Options that a node and a CSU share. Durations are seconds.

    :raises ConfigurationError: a value is out of its range; the sentence names key, value and limit.
    """

    ROLE: ClassVar[Role]

    state: Path
    name: str = option(
        NAME, "Its name, as people see it.", said="the host's name", example='"lab-7"', factory=_host_name
    )
    listen: tuple[str, ...] = option(
        ADDRESSES,
        "TCP addresses to listen on besides the unix socket, for clients and for the other instances of the"
        " cluster, who are told the first; only loopback ones without insecure_lan.",
        said="none",
        example='["127.0.0.1:7001"]',
        default=(),
    )
    insecure_lan: bool = option(
        BOOLEAN,
        "Whether listen and interface may be beyond loopback. There are no certificates yet: anybody who reaches"
        " such an address may run scripts, as any client. Only for networks where everybody is trusted.",
        default=False,
    )
    cluster: str = option(NAME, "The cluster's name; instances of other clusters are not listened to.", default="cmt")
    cluster_key_file: Path | None = option(
        PATH,
        "A file with a secret of 16 bytes or more that all instances of the cluster have, readable by its owner"
        " only: announcements and links are authenticated by it.",
        said="none; announcements and links are not authenticated",
        example='"/etc/cloudmytask/cluster.key"',
        default=None,
    )
    group: str | None = option(
        GROUP,
        "The multicast group where instances find each other.",
        said=f"{DEFAULT_GROUP} if the first address in listen is beyond loopback, none otherwise",
        example=f'"{DEFAULT_GROUP}"',
        default=None,
    )
    interface: str | None = option(
        IPV4,
        "An address of this host: the group is joined on its interface, and the others are told it where listen"
        " names all addresses (0.0.0.0).",
        said="the host of the first address in listen",
        example='"127.0.0.1"',
        default=None,
    )
    seeds: tuple[str, ...] = option(
        PEERS,
        "Other instances, to be asked directly where multicast does not reach them; one that is up is enough.",
        said="none",
        example='["10.0.0.5:7001", "lab-7:7001"]',
        default=(),
    )
    announce_budget: int = option(
        BIT_RATE,
        "What all announcements in the group together may take; the more instances there are, the rarer they are.",
        default=4_000_000,
        minimum=10_000,
        maximum=10**10,
    )
    heartbeat: float = option(
        DURATION, "The shortest regular interval between two announcements.", minimum=0.1, maximum=20, default=1.0
    )

    log: Path | Literal["-"] | None = option(
        LOG,
        "The log file, one JSON object per line.",
        said="{role}.log in the state directory for a daemon, standard error otherwise",
        example='"/var/log/cloudmytask.log"',
        default=None,
    )

    def __attrs_post_init__(self) -> None:
        """Check what concerns more than one value."""
        size = len(os.fsencode(self.socket))
        if size > SOCKET_PATH_MAX:
            raise ConfigurationError(
                f"state: the socket's path {str(self.socket)!r} has {size} bytes, and a unix socket may have"
                f" {SOCKET_PATH_MAX} at most; choose a shorter state directory."
            )
        for address in self.listen:
            _check("listen", split_listen if self.insecure_lan else check_loopback, address)
        if self.interface is not None and not self.insecure_lan and not is_loopback(IPv4Address(self.interface)):
            raise ConfigurationError(
                f"interface: {self.interface!r} is beyond loopback, which takes insecure_lan = true"
                " (--insecure-lan true)."
            )
        if self.listen and self.interface is None and self._first_host().is_unspecified:
            raise ConfigurationError(
                f"listen: {self.listen[0]!r} names every address of this host, and the others need one to connect to:"
                " say in interface which."
            )
        for key, given in (("group", self.group), ("seeds", self.seeds)):
            if given and not self.listen:
                raise ConfigurationError(
                    f"{key}: other instances must be able to connect to this one: give listen too."
                )
        if self.group and self.multicast_interface is None:
            raise ConfigurationError(
                f"group: {self.listen[0]!r} is not an IPv4 address: say in interface where to join the group."
            )

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """List every option, in the order of the documentation."""
        return tuple(option_of(attribute, cls.ROLE) for attribute in attrs.fields(cls))

    @property
    def socket(self) -> Path:
        """Path of the unix socket."""
        return socket_path(self.state, self.ROLE)

    @property
    def beyond_loopback(self) -> bool:
        """Whether other hosts can reach it."""
        return any(not is_loopback(split_listen(each)[0]) for each in self.listen)

    @property
    def address(self) -> str:
        """What the others are told, ``HOST:PORT``; empty without ``listen``. A port 0 is still to be replaced by the
        one that it became."""
        if not self.listen:
            return ""
        host, port = split_listen(self.listen[0])
        if host.is_unspecified:
            assert self.interface is not None
            return join_address(self.interface, port)
        return join_address(host, port)

    @property
    def multicast_interface(self) -> str | None:
        """The IPv4 address whose interface joins the group; None if there is none to be known."""
        if self.interface is not None or not self.listen:
            return self.interface
        host = self._first_host()
        return str(host) if isinstance(host, IPv4Address) else None

    @property
    def multicast_group(self) -> tuple[str, int] | None:
        """Address and port; None if multicast is off."""
        if self.group is not None:
            return split_group(self.group) if self.group else None
        on = (
            bool(self.listen)
            and self.multicast_interface is not None
            and not is_loopback(split_listen(self.address)[0])
        )
        return split_group(DEFAULT_GROUP) if on else None

    def _first_host(self) -> IpAddress:
        return split_listen(self.listen[0])[0]


def _check(key: str, check: Callable[[str], object], address: str) -> None:
    try:
        check(address)
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}.") from None
