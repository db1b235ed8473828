"""What a simulated cluster is to live through.

Invariant: a frozen value; nothing but it decides what happens.
"""

from __future__ import annotations

from attrs import frozen

from cloudmytask.model.words import RESERVE_PULL
from cloudmytask.simulation.arrivals import Gateway, Lengths


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
    loss: float = 0.0
    """Share of all multicast deliveries that are lost."""
    ban: bool = False
    """Ban one of the clients midway."""
    warm: float = 0.1
    """Share of the jobs, the first ones, that do not count for the slowdown: the cluster is still filling up."""
