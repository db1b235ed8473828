"""What becomes of a request when its node does not answer: a pure machine, and which nodes may be asked about a job.

A request begins as :class:`Sent`. Each state owns what it knows and has a method for each event that may happen in
it, which gives the next state; none does I/O (that is ``node_session``'s part)::

    Sent -- connection lost --> Returning -- reached again --> Sent
    Sent -- takes no new work, hangs --> Moving        Returning -- gone --> Moving
    Moving -- another node found --> Sent              any -- nothing left to try --> Failed

Invariant: only new work moves to another node, and what must never run twice moves only while no node can have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from attrs import frozen

from cloudmytask.addresses import Address
from cloudmytask.client.connection import Connection
from cloudmytask.model.errors import CloudMyTaskError, ConnectionInterrupted, NodeDraining, RequestTimeout

LOSSES_MAX = 20
"""Connections that one request may cost before we believe that it is the request's fault."""


def nodes_to_ask(
    accepted_by: Address | None, talking_to: Connection | None, named: Sequence[Address]
) -> tuple[Address, ...]:
    """Where a question about a job may be asked, in order: of the node that accepted it, and of no other.

    :param accepted_by: None if that is not known. Then it is the node that we talk to, or, if that one only stands in,
        maybe one of those that were named.
    """
    if accepted_by is not None:
        return (accepted_by,)
    if talking_to is None:
        return tuple(named)
    return (talking_to.address,) if talking_to.instead_of is None else (talking_to.address, *named)


class Recourse(Enum):
    """What a request may do when its node does not answer."""

    NONE = "fail with its connection"
    REPEAT = "be asked again of the same node"
    MOVE = "be asked again, or move to another node"
    MOVE_UNSENT = "be asked again; move to another node only while no node can have it"


@frozen
class Sent:
    """The request is with a node.

    :ivar losses: how many connections it has cost.
    """

    recourse: Recourse
    losses: int = 0

    def failed(self, problem: CloudMyTaskError) -> Returning | Moving | Failed:
        """It was not answered, or declined."""
        if isinstance(problem, ConnectionInterrupted) and self.recourse is not Recourse.NONE:
            losses = self.losses + 1
            if losses == LOSSES_MAX:
                return Failed(ConnectionInterrupted(f"the connection was lost {LOSSES_MAX} times"))
            return Returning(self.recourse, losses)
        if isinstance(problem, NodeDraining) and (
            self.recourse is Recourse.MOVE or (self.recourse is Recourse.MOVE_UNSENT and not self.losses)
        ):
            return Moving(self.recourse, self.losses, problem, "takes no new work")
        if isinstance(problem, RequestTimeout) and self.recourse is Recourse.MOVE:
            return Moving(self.recourse, self.losses, problem, "does not answer")
        return Failed(problem)


@frozen
class Returning:
    """The connection was lost. The node may have the request, and may only be restarting: it is to be reached again."""

    recourse: Recourse
    losses: int

    def reached(self) -> Sent:
        """It is back."""
        return Sent(self.recourse, self.losses)

    def gone(self, problem: CloudMyTaskError) -> Moving | Failed:
        """It could not be reached in time."""
        if self.recourse is Recourse.MOVE:
            return Moving(self.recourse, self.losses, problem, "does not answer")
        return Failed(problem)


@frozen
class Moving:
    """Another node is to be found.

    :ivar problem: with the one before. :ivar why: the same in words, as something that this node does.
    """

    recourse: Recourse
    losses: int
    problem: CloudMyTaskError
    why: str

    def found(self) -> Sent:
        """There is one."""
        return Sent(self.recourse, self.losses)

    def alone(self) -> Failed:
        """There is none."""
        return Failed(self.problem)


@frozen
class Failed:
    """Nothing is left to try."""

    problem: CloudMyTaskError


State = Sent | Returning | Moving | Failed
