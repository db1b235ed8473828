"""The documented TOML file, made from the options' own metadata.

Invariant: the text depends on nothing but the code, so that documentation can be checked against it.
"""

from __future__ import annotations

import textwrap

from cloudmytask.config.instance import InstanceConfig
from cloudmytask.config.node import NodeConfig
from cloudmytask.config.option import Option
from cloudmytask.config.options import options


def reference(of: type[InstanceConfig] = NodeConfig) -> str:
    """A TOML file with every option commented out: what it is for, what is accepted, and its default."""
    return "\n".join(map(_paragraph, options(of)))


def _paragraph(option: Option) -> str:
    lines = [
        *textwrap.wrap(option.help, 98),
        f"Value: {option.kind.unit}" + (f" ({option.limits})" if option.limits else ""),
        f"Default: {option.default}",
    ]
    return "".join(f"# {line}\n" for line in lines) + f"#{option.key} = {option.example}\n"
