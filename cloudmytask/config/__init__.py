"""The configuration of a node or a CSU: its options, where their values come from, and their documentation.

Invariant: a :class:`NodeConfig` or :class:`CsuConfig` that exists is valid; what is wrong was a
:class:`~cloudmytask.model.errors.ConfigurationError` before.
"""

from cloudmytask.config.csu import CsuConfig
from cloudmytask.config.instance import InstanceConfig
from cloudmytask.config.node import NodeConfig
from cloudmytask.config.options import Option
from cloudmytask.config.sources import default_file, load, reference

__all__ = [
    "CsuConfig",
    "InstanceConfig",
    "NodeConfig",
    "Option",
    "default_file",
    "load",
    "reference",
]
