"""The configuration of a node or a CSU: its options, where their values come from, and their documentation.

Invariant: a :class:`NodeConfig` or :class:`CsuConfig` that exists is valid; whatever is wrong was a
:class:`~cloudmytask.model.errors.ConfigurationError` before.
"""

from cloudmytask.config.csu import CsuConfig
from cloudmytask.config.instance import InstanceConfig
from cloudmytask.config.key import load_key
from cloudmytask.config.node import NodeConfig
from cloudmytask.config.option import Option
from cloudmytask.config.options import options
from cloudmytask.config.reference import reference
from cloudmytask.config.sources import default_file, load
from cloudmytask.directories import default_state, socket_path

__all__ = [
    "CsuConfig",
    "InstanceConfig",
    "NodeConfig",
    "Option",
    "default_file",
    "default_state",
    "load",
    "load_key",
    "options",
    "reference",
    "socket_path",
]
