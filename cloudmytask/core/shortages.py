"""What a node is short of, and when it looks whether that is over.

A shortage is the node's: it is no outcome of the job that met it, and the node takes nothing new until it is over. It
is over when something that needs the resource has worked. Until then one job at a time may try, after pauses that
grow with every failure ("half-open", as a circuit breaker has it).

Invariant: between two trials at least the pause lies that the last failure brought; what is not met is never current.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from attrs import Factory, define

from cloudmytask.core.backoff import Backoff
from cloudmytask.model.words import Resource

TRIALS = Backoff(first=0.5, factor=2.0, ceiling=30.0)
"""Between something that failed for want of a resource and the next job that tries."""

_ERRORS: Mapping[int, Resource] = {
    errno.ENOSPC: Resource.DISK,
    errno.EDQUOT: Resource.DISK,
    errno.EMFILE: Resource.DESCRIPTORS,
    errno.ENFILE: Resource.DESCRIPTORS,
    errno.ENOMEM: Resource.MEMORY,
}


def resource_of(error: OSError, *, launching: bool = False) -> Resource | None:
    """What the system was short of, if that is what an error says.

    :param launching: it comes from the start of a process, for which ``EAGAIN`` means that there can be no further one.
    """
    if launching and error.errno == errno.EAGAIN:
        return Resource.PROCESSES
    return _ERRORS.get(error.errno or 0)


@define
class _Shortage:
    failures: int = 0
    next_trial: float = 0.0
    trying: bool = False
    """Whether a job tries, as far as is known."""


@define
class Shortages:
    """The shortages of one node."""

    _met: dict[Resource, _Shortage] = Factory(dict)

    @property
    def current(self) -> tuple[Resource, ...]:
        """What the node is short of, in the order of the class."""
        return tuple(each for each in Resource if each in self._met)

    def met(self, resource: Resource, now: float, jitter: float) -> bool:
        """Something failed for want of ``resource``; whether that is news.

        :param jitter: a random number in 0..1.
        """
        known = self._met.get(resource)
        shortage = known or self._met.setdefault(resource, _Shortage())
        if known is None or shortage.trying:  # what began before that, and fails late, says nothing new
            shortage.failures, shortage.trying = shortage.failures + 1, False
            shortage.next_trial = now + TRIALS.delay(shortage.failures, jitter)
        return known is None

    def may_try(self, now: float) -> bool:
        """Whether a job may be started at all: nothing is lacking, or it is time for a trial."""
        return all(now >= each.next_trial for each in self._met.values())

    def trial(self, now: float) -> None:
        """A job is about to try: no other one does before the pause has passed once more."""
        for each in self._met.values():
            each.trying, each.next_trial = True, now + TRIALS.delay(each.failures + 1, 0.0)

    def over(self, *resources: Resource) -> tuple[Resource, ...]:
        """Something that needs these has worked; those that were short until now."""
        return tuple(each for each in resources if self._met.pop(each, None) is not None)
