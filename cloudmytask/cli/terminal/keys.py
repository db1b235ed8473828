"""Keys pressed at the terminal while a verb works.

Invariant: the terminal is given back as it was found, also when the verb fails.
"""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

STDIN = 0


@implementer(IReadDescriptor)
@define(eq=False)
class Keys:
    """Tells of each piece of what is typed."""

    _pressed: Callable[[bytes], object]

    def fileno(self) -> int:
        """Twisted's interface."""
        return STDIN

    def doRead(self) -> Failure | None:  # noqa: N802 - Twisted's name
        """Twisted's interface. A terminal that is gone sends SIGHUP, which ends the verb; here it is only not read."""
        try:
            data = os.read(STDIN, 1024)
        except OSError as error:
            return Failure(error)
        if not data:
            return Failure(EOFError())
        self._pressed(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Twisted's interface."""

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """Twisted's interface."""
        return "keys"


@contextmanager
def pressed(reactor: Any, told: Callable[[bytes], object]) -> Iterator[None]:
    """Meanwhile, tell of keys as they are pressed, if our standard input is a terminal that we may read."""
    if not os.isatty(STDIN) or os.tcgetpgrp(STDIN) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(STDIN)
    keys = Keys(told)
    tty.setcbreak(STDIN)
    reactor.addReader(keys)
    try:
        yield
    finally:
        reactor.removeReader(keys)
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
