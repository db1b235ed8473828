"""A start without consequences, for the moment before twistd turns into a daemon and its terminal is gone.

Invariant: nothing is held afterwards, and no thread was started: the process may fork.
"""

from __future__ import annotations

import secrets

from cloudmytask.config import NodeConfig
from cloudmytask.service.claim import claim
from cloudmytask.store.database import prepare
from cloudmytask.store.opened import Paths
from cloudmytask.store.schema import STEPS


def rehearse(config: NodeConfig) -> None:
    """Find out whether a node with this configuration can start: lock, addresses, and the database if there is one.

    :raises StartFailed: with one sentence about what is in the way.
    """
    held = claim(config)
    try:
        database = Paths(config.state).database
        if database.exists():
            prepare(database, STEPS, lambda: secrets.token_hex(16))
    finally:
        held.release()
