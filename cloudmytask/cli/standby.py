"""The nodes that may stand in for the one that was named, as far as earlier verbs were told of them.

Invariant: a person is told which node is talked to instead of which. What is learned is learned when the verb's own
work is done, and costs it a moment at most.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError

from cloudmytask.cli.remembered import Memory, Remembered
from cloudmytask.cli.terminal.console import Console
from cloudmytask.client.addresses import Address
from cloudmytask.client.peers import peers_of
from cloudmytask.client.ways import Reached, Ways
from cloudmytask.model.errors import CloudMyTaskError

LEARN_TIMEOUT = 0.03
"""Seconds for which a verb that has done its work waits to hear which other nodes there are."""


@define(eq=False)
class Standby:
    """Those of one address.

    :ivar asked: the address that was named.
    """

    asked: Address
    _console: Console
    _remembered: Remembered
    _memory: Memory | None = field(init=False)
    _tried: set[str] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._memory = self._remembered.recall(self.asked)

    async def reach(self, ways: Ways, gone: Reached | None, why: str) -> Reached | None:
        """Connect to the next of them, and say so; None if none is left.

        :param gone: where we were connected before.
        :raises Banned: the client is.
        """
        left = self.asked if gone is None else gone.address
        self._tried.update({self.asked.key, left.key})
        found = await ways.to_stand_in(self._memory.peers if self._memory else (), self.asked, self._tried)
        if found is not None:
            self._console.note(f"{left.text} {why}; talking to {found.name} at {found.address.text}")
        return found

    async def learn(self, ways: Ways, reached: Reached) -> None:
        """Ask which nodes there are, if that is due, and remember them. Never fails."""
        if self._knows(reached):
            return
        try:
            view = await reached.client.some_of_cluster(LEARN_TIMEOUT)
        except (CloudMyTaskError, CancelledError):
            return  # the next verb asks again
        self._remembered.keep(self.asked, peers_of(view, ways.identity, with_teller=reached.instead_of is not None))

    def _knows(self, reached: Reached) -> bool:
        memory = self._memory
        if memory is None or not self._remembered.fresh(memory):
            return False
        # The one that stands in now is to be the first to be tried the next time: it has our jobs.
        return reached.instead_of is None or memory.peers[0].address.key == reached.address.key
