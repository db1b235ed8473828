"""What an instance needs to meet others: the multicast bus and the links, over a real network.

Invariant: wiring only; nothing is sent before the instance opens them. Without a group the bus is none.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorMulticast, IStreamClientEndpoint

from cloudmytask.addresses import Address
from cloudmytask.boundaries import Bus
from cloudmytask.config import InstanceConfig
from cloudmytask.config.key import load_key
from cloudmytask.model.errors import ConfigurationError, StartFailed
from cloudmytask.net.multicast import MulticastBus, NullBus
from cloudmytask.net.peer_links import PeerLinks
from cloudmytask.service.entropy import SystemEntropy


@frozen
class Peers:
    """See the module."""

    entropy: SystemEntropy
    bus: Bus
    links: PeerLinks


def make_peers(config: InstanceConfig, reactor: Any) -> Peers:
    """The bus and the links that the configuration asks for.

    :raises StartFailed: the cluster's key cannot be used.
    """
    try:
        key = None if config.cluster_key_file is None else load_key(config.cluster_key_file)
    except ConfigurationError as problem:
        raise StartFailed(str(problem)) from None

    def endpoint(address: str) -> IStreamClientEndpoint:
        return Address.parse(address, "peer").endpoint(reactor)

    entropy = SystemEntropy()
    group, interface = config.multicast_group, config.multicast_interface
    bus: Bus = NullBus()
    if group is not None and interface is not None:
        bus = MulticastBus(IReactorMulticast(reactor), reactor, group, interface, config.cluster, key)
    return Peers(entropy, bus, PeerLinks(endpoint, reactor, entropy, key))
