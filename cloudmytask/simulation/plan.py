"""What a simulated cluster is to live through: its plan, and the jobs that come of it.

Invariant: nothing but the plan, a frozen value, decides what happens; equal parameters and equal dice give equal
arrivals, in their order.
"""

from __future__ import annotations

import enum
import random

from attrs import frozen

from cloudmytask.model.words import RESERVE_PULL

TAIL = 1.1
"""Exponent of the heavy-tailed lengths: a few jobs are most of the work (overlay simulations, section 4)."""
SPREAD = 1000.0
"""The longest of them by the shortest."""


class Lengths(enum.StrEnum):
    """How the lengths of jobs are distributed."""

    CONSTANT = "constant"
    HEAVY = "heavy"
    """Bounded Pareto."""


class Gateway(enum.StrEnum):
    """Which nodes jobs are submitted to."""

    ONE = "one"
    EVEN = "even"
    """Each of them, by chance."""


@frozen(kw_only=True)
class ClusterPlan:
    """What is simulated. Times in seconds, shares 0..1."""

    seed: int = 1
    nodes: int = 16
    slots: int = 4
    jobs: int = 1000
    load: float = 0.95
    """The work that arrives by what all slots can do."""
    length: float = 1.0
    """Of a job, on average."""
    lengths: Lengths = Lengths.CONSTANT
    gateway: Gateway = Gateway.EVEN
    policy: str = RESERVE_PULL
    clients: int = 10
    kill: float = 0.0
    """Share of the nodes that are killed once, and started again a little later."""
    partitions: int = 0
    """How often the network falls into two halves for a while."""
    shortages: int = 0
    """How often a node can start no script for a while."""
    loss: float = 0.0
    """Share of all multicast deliveries that are lost."""
    ban: bool = False
    """Ban one of the clients midway."""
    warm: float = 0.1
    """Share of the jobs, the first ones, that do not count for the slowdown: the cluster is still filling up."""


@frozen
class Arrival:
    """A job that is submitted. Times in seconds."""

    at: float
    length: float
    node: int
    """The number of the node that it is submitted to, from 0."""


def poisson_arrivals(
    dice: random.Random,
    *,
    jobs: int,
    nodes: int,
    slots: int,
    load: float,
    mean: float = 1.0,
    lengths: Lengths = Lengths.CONSTANT,
    gateway: Gateway = Gateway.EVEN,
) -> list[Arrival]:
    """Independent arrivals that fill a share of the cluster.

    :param slots: of each node.
    :param load: the work that arrives, by what all slots can do; from 1 on the queue grows without end.
    :param mean: of the lengths, seconds.
    :raises ValueError: a number is not positive.
    """
    for name, value in (("jobs", jobs), ("nodes", nodes), ("slots", slots), ("load", load), ("mean", mean)):
        if not value > 0:
            raise ValueError(f"{name} is {value} and must be more than 0")
    rate = load * nodes * slots / mean
    now = 0.0
    arrivals = []
    for _ in range(jobs):
        now += dice.expovariate(rate)
        length = mean if lengths == Lengths.CONSTANT else bounded_pareto(dice.random(), mean)
        arrivals.append(Arrival(now, length, 0 if gateway == Gateway.ONE else dice.randrange(nodes)))
    return arrivals


def bounded_pareto(chance: float, mean: float, tail: float = TAIL, spread: float = SPREAD) -> float:
    """The length that a share ``chance`` (0..1) of all lengths do not exceed.

    :param mean: of all of them.
    :param tail: the exponent, not 1.
    :param spread: the longest by the shortest.
    """
    bulk = 1.0 - spread**-tail
    shortest = mean * bulk * (tail - 1.0) / (tail * (1.0 - spread ** (1.0 - tail)))
    return float(shortest * (1.0 - chance * bulk) ** (-1.0 / tail))
