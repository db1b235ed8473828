"""The configuration of a node: its options, where their values come from, and their documentation.

Invariant: a :class:`NodeConfig` that exists is valid; whatever is wrong was a
:class:`~cloudmytask.errors.ConfigurationError` before.
"""

from cloudmytask.config.node import NodeConfig, default_state, options, socket_path
from cloudmytask.config.option import Option
from cloudmytask.config.reference import reference
from cloudmytask.config.sources import default_file, load

__all__ = [
    "NodeConfig",
    "Option",
    "default_file",
    "default_state",
    "load",
    "options",
    "reference",
    "socket_path",
]
