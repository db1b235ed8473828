"""The switch between the hosts, and what goes wrong in it.

Invariant: faults add up until :meth:`Switch.heal`, and each is in force when its method returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Literal

from attrs import define, field


@define(eq=False)
class Switch:
    """The bridge that the hosts' cables are in.

    :ivar run: runs a command line where the bridge is; fails if that fails.
    """

    hosts: int
    run: Callable[..., None]
    _rules: list[str] = field(init=False, factory=list)

    def isolate(self, host: int) -> None:
        """Pull the cable out of the switch: the host hears nobody, nobody hears it, and no send fails."""
        self.run("ip", "link", "set", self._port(host), "down")

    def split(self, *sides: Iterable[int]) -> None:
        """Let through nothing from one side to another."""
        for one, other in permutations([list(side) for side in sides], 2):
            self.lose(senders=one, receivers=other)

    def lose(
        self,
        percent: float = 100,
        *,
        senders: Iterable[int] | None = None,
        receivers: Iterable[int] | None = None,
        traffic: Literal["all", "multicast"] = "all",
    ) -> None:
        """Lose so much of what goes from these to those, in that direction only.

        :param percent: share of the frames, at random.
        :param senders: None: of all.
        :param receivers: None: to all.
        """
        parts = [
            *([] if senders is None else [f"iifname {self._ports(senders)}"]),
            *([] if receivers is None else [f"oifname {self._ports(receivers)}"]),
            *([] if traffic == "all" else ["meta pkttype multicast"]),
            *([] if percent >= 100 else [f"numgen random mod 10000 < {round(percent * 100)}"]),
            "counter drop",
        ]
        self._rules.append(" ".join(parts))
        self._apply()

    def heal(self) -> None:
        """No fault any more."""
        self._rules.clear()
        self._apply()
        for host in range(1, self.hosts + 1):
            self.run("ip", "link", "set", self._port(host), "up")

    def _port(self, host: int) -> str:
        assert 1 <= host <= self.hosts, f"there is no host {host} among {self.hosts}"
        return f"p{host}"

    def _ports(self, hosts: Iterable[int]) -> str:
        return f"{{ {', '.join(self._port(host) for host in hosts)} }}"

    def _apply(self) -> None:
        """In one step: there is no moment without the faults that were there before."""
        rules = "\n".join(self._rules)
        self.run(
            "nft",
            "add table bridge faults\ndelete table bridge faults\n"
            f"table bridge faults {{\nchain forward {{\ntype filter hook forward priority 0\n{rules}\n}}\n}}",
        )
