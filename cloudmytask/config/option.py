"""What is known about one option besides its value, and how that is attached to a field.

Invariant: a value that passes ``Option.parse`` is of the option's type and within its limits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from cloudmytask.config.kinds import Kind
from cloudmytask.model.errors import ConfigurationError


@frozen
class Option:
    """What is known about one option besides its value."""

    key: str
    kind: Kind
    help: str
    default: str
    """As TOML text, or in words where it depends on the machine."""
    example: str
    """TOML text."""
    minimum: float
    maximum: float

    @property
    def flag(self) -> str:
        """The name on the command line, without its leading dashes."""
        return self.key.replace("_", "-")

    @property
    def limits(self) -> str:
        """The accepted range in words; empty where there is none."""
        if math.isinf(self.minimum):
            return ""
        if math.isinf(self.maximum):
            return f"at least {self.kind.show(self.minimum)}"
        return f"{self.kind.show(self.minimum)} to {self.kind.show(self.maximum)}"

    def parse(self, value: object, base: Path) -> Any:
        """The option's value from a TOML value.

        :param base: where relative paths start.
        :raises ValueError: with a sentence that names the value and the limit.
        """
        parsed = self.kind.parse(value, base)
        # Written so that NaN is outside as well.
        if self.limits and not self.minimum <= parsed <= self.maximum:
            raise ValueError(f"{self.kind.show(parsed)} is out of range: give {self.limits}")
        return parsed


def about(
    kind: Kind,
    sentence: str,
    *,
    said: str | None = None,
    example: str | None = None,
    minimum: float = -math.inf,
    maximum: float = math.inf,
) -> dict[str, Any]:
    """A field's metadata; ``said`` and ``example`` stand for a default that depends on the machine."""
    return {
        "kind": kind,
        "unit": kind.unit,
        "help": sentence,
        "said": said,
        "example": example,
        "minimum": minimum,
        "maximum": maximum,
    }


def option_of(attribute: attrs.Attribute[Any]) -> Option:
    """The option that a field described with :func:`about` stands for."""
    about = attribute.metadata
    kind: Kind = about["kind"]
    default = about["said"] or kind.show(attribute.default)
    return Option(
        key=attribute.name,
        kind=kind,
        help=about["help"],
        default=default,
        example=about["example"] or default,
        minimum=about["minimum"],
        maximum=about["maximum"],
    )


def valid(_config: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """An attrs validator.

    :raises ConfigurationError: with a sentence that names key, value and limit.
    """
    option = option_of(attribute)
    try:
        if value is not None:
            option.parse(str(value) if isinstance(value, Path) else value, Path())
    except ValueError as error:
        raise ConfigurationError(f"{option.key}: {error}.") from None
