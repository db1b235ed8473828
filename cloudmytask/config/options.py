"""The options of a configuration class as a list.

Invariant: the order is that of the documentation.
"""

from __future__ import annotations

import attrs

from cloudmytask.config.instance import InstanceConfig
from cloudmytask.config.node import NodeConfig
from cloudmytask.config.option import Option, option_of


def options(of: type[InstanceConfig] = NodeConfig) -> tuple[Option, ...]:
    """Every option of a node, or of the class given."""
    return tuple(option_of(attribute) for attribute in attrs.fields(of))
