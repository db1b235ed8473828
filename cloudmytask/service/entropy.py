"""Randomness of the operating system.

Invariant: what :meth:`SystemEntropy.token` gives cannot be guessed.
"""

from __future__ import annotations

import random
import secrets

from attrs import field, frozen


@frozen
class SystemEntropy:
    """Implements :class:`cloudmytask.boundaries.Entropy`; tokens come from getrandom(2)."""

    random: random.Random = field(factory=random.SystemRandom)

    def token(self, size: int) -> bytes:
        """``size`` bytes that nobody can guess."""
        return secrets.token_bytes(size)
