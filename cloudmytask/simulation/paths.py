"""Which simulated hosts reach each other: partitions, one-way cuts, hosts that fell silent.

Invariant: a path is directed; a host always reaches itself. A host that no partition names reaches both
sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field


@define(eq=False)
class Paths:
    """The state of the wires. ``changed`` is called after each repair."""

    changed: Callable[[], None] = field(default=lambda: None)
    _sides: dict[str, int] = field(init=False, factory=dict)
    _cuts: dict[tuple[str, str], None] = field(init=False, factory=dict)
    _silent: dict[str, None] = field(init=False, factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everybody reaches everybody."""
        return not (self._sides or self._cuts or self._silent)

    def reaches(self, here: str, there: str) -> bool:
        """Whether what ``here`` sends arrives at ``there``."""
        if self.whole or here == there:
            return True
        if here in self._silent or there in self._silent or (here, there) in self._cuts:
            return False
        side, other = self._sides.get(here), self._sides.get(there)
        return side is None or other is None or side == other

    def partition(self, *groups: Iterable[str]) -> None:
        """Hosts of different groups no longer reach each other; replaces an earlier partition."""
        self._sides = {host: number for number, group in enumerate(groups) for host in group}
        self.changed()

    def cut(self, here: str, there: str) -> None:
        """Nothing gets from ``here`` to ``there`` any more; the other way is as it was."""
        self._cuts[here, there] = None

    def mend(self, here: str, there: str) -> None:
        """Undo :meth:`cut`."""
        self._cuts.pop((here, there), None)
        self.changed()

    def silence(self, host: str) -> None:
        """A host vanishes without a word: its cable is out, or its power."""
        self._silent[host] = None

    def restore(self, host: str) -> None:
        """Undo :meth:`silence`."""
        self._silent.pop(host, None)
        self.changed()

    def heal(self) -> None:
        """Undo everything."""
        self._sides, self._cuts, self._silent = {}, {}, {}
        self.changed()
