"""One option: what is known about it besides its value, and how it is declared as a field of a configuration class.

Invariant: a value that passes ``Option.parse`` is of the option's type and within its limits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from cloudmytask.config.kinds import Kind
from cloudmytask.model.errors import ConfigurationError


@frozen
class Option:
    """What is known about one option besides its value."""

    key: str
    kind: Kind
    help: str
    default: str
    """As TOML text, or in words if it depends on the machine."""
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
        """The accepted range in words; empty if there is none."""
        if math.isinf(self.minimum):
            return ""
        if math.isinf(self.maximum):
            return f"at least {self.kind.show(self.minimum)}"
        return f"{self.kind.show(self.minimum)} to {self.kind.show(self.maximum)}"

    def parse(self, value: object, base: Path) -> Any:
        """Read the option's value from a TOML value.

        :param base: the directory at which relative paths start.
        :raises ValueError: it is not accepted; the sentence names the value and the limit.
        """
        parsed = self.kind.parse(value, base)
        # Written so that NaN is outside as well.
        if self.limits and not self.minimum <= parsed <= self.maximum:
            raise ValueError(f"{self.kind.show(parsed)} is out of range: give {self.limits}")
        return parsed


def option(
    kind: Kind,
    sentence: str,
    *,
    said: str | None = None,
    example: str | None = None,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    **default: Any,
) -> Any:
    """Declare an option as a field of an attrs class.

    :param said: the default in words, if it depends on the machine; ``{role}`` in it is replaced by the instance's.
    :param default: ``default`` or ``factory``, as for ``attrs.field``.
    """
    about = {"kind": kind, "unit": kind.unit, "help": sentence, "said": said, "example": example}
    return field(validator=_check, metadata={**about, "minimum": minimum, "maximum": maximum}, **default)


def option_of(attribute: attrs.Attribute[Any], role: str = "") -> Option:
    """Take the option out of a field that :func:`option` declared."""
    about = attribute.metadata
    kind: Kind = about["kind"]
    default = kind.show(attribute.default) if about["said"] is None else about["said"].format(role=role)
    return Option(
        key=attribute.name,
        kind=kind,
        help=about["help"],
        default=default,
        example=about["example"] or default,
        minimum=about["minimum"],
        maximum=about["maximum"],
    )


def _check(_config: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """An attrs validator.

    :raises ConfigurationError: the value is not accepted; the sentence names key, value and limit.
    """
    option = option_of(attribute)
    try:
        if value is not None:
            option.parse(str(value) if isinstance(value, Path) else value, Path())
    except ValueError as error:
        raise ConfigurationError(f"{option.key}: {error}.") from None
