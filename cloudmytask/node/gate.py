"""Who may do what on a node, decided in one place.

Until certificates exist an identity is what the connection claims (design section 7): clients are trusted colleagues
on one machine, told apart so that their jobs do not get mixed up.
"""

from __future__ import annotations

from attrs import Factory, define

from cloudmytask.core.admission import check_client
from cloudmytask.errors import NodeDraining
from cloudmytask.model import ClientId
from cloudmytask.node.waiting import Signal


@define
class Gate:
    """The state of a node's door."""

    node: str
    draining: bool = False
    closing: Signal = Factory(Signal)
    """Fired when draining begins, and again when it is cut short."""

    def close(self) -> None:
        """Accept no new work from now on."""
        self.draining = True
        self.closing.fire()

    def identify(self, claim: str) -> ClientId:
        """The identity behind a connection. :raises InvalidArgument: the claim is no ClientID."""
        return check_client(claim)

    def admit_work(self) -> None:
        """:raises NodeDraining: no new work is accepted any more."""
        if self.draining:
            raise NodeDraining(f"node {self.node} is shutting down and accepts no new work")
