"""The commands that one end of a connection answers: arguments out of a box, the answer or the failure into one.

Invariant: every request is answered; what is malformed, or fails in a way that nobody foresaw, as a declared failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.model.errors import CloudMyTaskError, InternalError, InvalidArgument
from cloudmytask.wire.arguments import Flag
from cloudmytask.wire.commands import NodeCommand

_log = Logger()

DESCRIPTION_MAX = 2000
"""Characters of an error's sentence on the wire."""

Responder = Callable[..., object]
_KINDS: Mapping[type[amp.Argument], str] = {
    amp.Integer: "a whole number",
    amp.Float: "a number",
    amp.Unicode: "text in UTF-8",
    amp.ListOf: "a list",
    Flag: "True or False",
}


@implementer(amp.IResponderLocator)
class Vocabulary:
    """The commands that one end answers; testable without a connection.

    :param admit: called with the size of each request, in bytes, before it is answered; may raise a declared failure.
    :param malformed: called for each request that cannot be decoded; may raise a declared failure.
    """

    def __init__(
        self,
        responders: Mapping[type[NodeCommand], Responder],
        admit: Callable[[int], None] | None = None,
        malformed: Callable[[], None] | None = None,
    ) -> None:
        self._responders = {command.commandName: (command, function) for command, function in responders.items()}
        self._admit = admit
        self._malformed = malformed

    def locateResponder(self, name: bytes) -> Callable[[amp.AmpBox], Deferred[amp.AmpBox]] | None:
        """Twisted's interface: None answers "unhandled command", and the connection survives."""
        found = self._responders.get(name)
        return None if found is None else partial(self._respond, *found)

    def _respond(self, command: type[NodeCommand], function: Responder, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        try:
            if self._admit is not None:
                self._admit(sum(map(len, box.values())))
            arguments = _parsed(command, box, self._malformed)
        except CloudMyTaskError as problem:
            return _failed(command, Failure(problem))
        answer: Deferred[Any] = maybeDeferred(function, **arguments)

        def encode(objects: dict[str, Any] | None) -> amp.AmpBox:
            return cast(amp.AmpBox, command.makeResponse(objects or {}, None))

        return answer.addCallback(encode).addErrback(lambda failure: _failed(command, failure))


def _parsed(command: type[NodeCommand], box: amp.AmpBox, malformed: Callable[[], None] | None) -> dict[str, Any]:
    """The arguments in a box. :raises InvalidArgument: naming the first that is missing or malformed."""
    strings, objects = box.copy(), dict[str, Any]()
    name = b""
    try:
        for name, argument in command.arguments:
            if name not in strings and not argument.optional:
                raise InvalidArgument(f"{name.decode()}: it is missing")
            argument.fromBox(name, strings, objects, None)
    except Exception as problem:  # what the parser trips over is the sender's malformed bytes
        if malformed is not None:
            malformed()
        if isinstance(problem, InvalidArgument):
            raise
        raise InvalidArgument(f"{name.decode()}: {box[name][:40]!r} is not {_KINDS[type(argument)]}") from None
    return objects


def _failed(command: type[NodeCommand], failure: Failure) -> Deferred[amp.AmpBox]:
    """Any failure as a declared one: what was not foreseen is logged here and told as :class:`InternalError`."""
    error = failure.value
    if not isinstance(error, CloudMyTaskError) or type(error) not in command.errors:
        _log.failure("{command} failed", failure, command=command.commandName.decode())
        error = InternalError(f"{command.commandName.decode()}: the node failed, its log says how")
    code = command.errors[type(error)]
    raised: Deferred[amp.AmpBox] = Deferred()
    raised.errback(Failure(amp.RemoteAmpError(code, str(error)[:DESCRIPTION_MAX], False, local=failure)))
    return raised
