"""The one way to subscribe to what happens here: to links, to the failure detector, to bans.

Invariant: each listener is called once for each event, in the order in which they were added, until its registration is
closed; one that fails is logged and keeps nothing from the others, nor from the teller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, ParamSpec

from twisted.logger import Logger

_log = Logger()
P = ParamSpec("P")


class Registration:
    """What :meth:`Listeners.add` returns; closing it ends the subscription."""

    __slots__ = ("_forget",)

    def __init__(self, forget: Callable[[], None] | None) -> None:
        self._forget = forget

    def close(self) -> None:
        """Call the listener no more, not even for an event that is being told right now. Idempotent."""
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()


class Listeners(Generic[P]):
    """Those who want to know of one kind of event; ``P`` are the arguments that describe it.

    :param emptied: called when the last registration is closed.
    """

    __slots__ = ("_added", "_emptied", "_last", "_listeners")

    def __init__(self, emptied: Callable[[], None] | None = None) -> None:
        self._emptied = emptied
        self._listeners: dict[int, Callable[P, object]] = {}
        self._added = 0
        self._last: Callable[[Callable[P, object]], None] | None = None

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: Callable[P, object]) -> Registration:
        """Call ``listener`` with every event from now on; at once, and only then, if the last one has been told."""
        if self._last is not None:
            self._last(listener)
            return Registration(None)
        self._added += 1
        key = self._added
        self._listeners[key] = listener
        return Registration(partial(self._forget, key))

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call each listener. What one of them adds meanwhile hears of the next event first."""
        for key in tuple(self._listeners):
            listener = self._listeners.get(key)
            if listener is not None:
                _call(listener, *args, **kwargs)

    def tell_last(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell an event after which there is no other: the listeners are forgotten, and later ones told at once."""
        if self._last is None:
            self._last = lambda listener: _call(listener, *args, **kwargs)
            self.tell(*args, **kwargs)
            self._listeners.clear()

    def _forget(self, key: int) -> None:
        if self._listeners.pop(key, None) is not None and not self._listeners and self._emptied is not None:
            self._emptied()


def _call(listener: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        listener(*args, **kwargs)
    except Exception:  # noqa: BLE001 - a bug of one listener is logged and is not the others' loss
        _log.failure("a listener failed: {listener!r}", listener=listener)
