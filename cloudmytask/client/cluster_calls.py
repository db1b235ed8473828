"""What the blocking client asks of the cluster.

Invariant: like every call of the client, each returns what it promises or raises a declared failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.options import Duration, seconds
from cloudmytask.codec.people import view_to_document
from cloudmytask.model.cluster import Ban

T = TypeVar("T")


class ClusterCalls(ABC):
    """The part of :class:`~cloudmytask.client.blocking.Client` that is about other things than jobs."""

    def nodes(self) -> list[Mapping[str, Any]]:
        """Every instance that the node knows, itself included: what ``cmt nodes --json`` lists."""
        view = self._call(lambda node: node.cluster())
        return list(view_to_document(view)["nodes"])

    def bans(self) -> list[Ban]:
        """Every ban in force; ``until`` of each is the seconds that remain."""
        found = self._call(lambda node: node.bans())
        return list(found)

    def ban(self, client: str, reason: str, term: Duration = "1h") -> Ban:
        """Ban a client on all nodes.

        :param reason: the banned client is told.
        :raises NotPermitted: the node is on another machine.
        """
        lasting = seconds("term", term) or 0.0
        return self._call(lambda node: node.ban(client, reason, lasting))

    def lift_ban(self, client: str) -> Ban:
        """End a ban now.

        :raises NoSuchBan: there is none. :raises NotPermitted: the node is on another machine.
        """
        return self._call(lambda node: node.lift_ban(client))

    @abstractmethod
    def _call(self, ask: Callable[[NodeClient], Deferred[T]]) -> T: ...
