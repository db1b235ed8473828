"""Who speaks on a connection, and what that allows.

Invariant: values only; a principal is made in one place, ``cloudmytask.api.principals``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from cloudmytask.model.job import ClientId

Verb = TypeVar("Verb", bound=Callable[..., object])


class AccessRole(enum.StrEnum):
    """What a principal may act as."""

    CLIENT = "client"
    ADMIN = "admin"
    NODE = "node"
    CSU = "csu"


class Proof(enum.StrEnum):
    """What makes us believe a principal."""

    SOCKET = "socket"
    """It came over the unix socket, so it works on this machine, as a user who may open that."""
    LOOPBACK = "loopback"
    """It works on this machine."""
    NETWORK = "network"
    """Nothing but its own word."""
    CLUSTER_KEY = "cluster key"
    """It knows the cluster's key."""


@frozen
class ScriptCaller:
    """The process at the other end of a unix socket belongs to a script that a node runs."""

    client: ClientId | None = None
    """Whose job the script is; None if that is not known here."""


@frozen
class Principal:
    """Who is at the other end of a connection."""

    name: ClientId
    """The ClientID; of an instance its name."""
    roles: frozenset[AccessRole]
    proof: Proof
    where: str = ""
    """The host that it is connected from, as far as is known; for people."""
    uid: int | None = None
    """The user who came over the unix socket, as the kernel says; None if it came another way."""
    script: bool = False
    """Whether it is a script that a node on this machine runs."""


def allowed(*roles: AccessRole) -> Callable[[Verb], Verb]:
    """Declare who may call a verb: a principal with one of ``roles``. What declares nothing may be called by nobody."""

    def declare(verb: Verb) -> Verb:
        verb.allowed = frozenset(roles)  # type: ignore[attr-defined]  # read by allowed_roles
        return verb

    return declare


def allowed_roles(verb: Callable[..., object]) -> frozenset[AccessRole]:
    """What :func:`allowed` declared of ``verb``."""
    return getattr(verb, "allowed", frozenset())
