"""How long to wait before trying again.

Invariant: delays grow geometrically up to a ceiling, and jitter only ever shortens them, so that a bound holds.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Backoff:
    """Delays in seconds: ``first``, then ``factor`` times more each time, at most ``ceiling``."""

    first: float = 1.0
    factor: float = 2.0
    ceiling: float = 60.0

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds to wait after ``failures`` failures (1 or more).

        :param jitter: a random number in 0..1; up to a quarter of the delay is taken away by it.
        """
        exponent = min(failures - 1, 64)
        return float(min(self.ceiling, self.first * self.factor**exponent)) * (1.0 - 0.25 * jitter)


RETRY = Backoff(first=1.0, factor=2.0, ceiling=60.0)
"""Between a failed attempt and the next one."""
SUSPICION = Backoff(first=2.0, factor=4.0, ceiling=300.0)
"""Between an attempt during which its node died, and not for the first time, and the next one."""
