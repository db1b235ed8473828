"""One finding of ``cmt doctor``.

Invariant: a problem is something that keeps a node or a client from working here, a note something that one may want
to know.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import asdict, frozen


@frozen
class Check:
    """One finding."""

    name: str
    level: Literal["ok", "note", "problem"]
    text: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
