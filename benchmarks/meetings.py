"""What benchmarks with several nodes need of the reactor and the client library.

Invariant: the reactor is the one on monotonic time, and runs only inside :func:`live`.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from cloudmytask import reactor as monotonic

monotonic.install()

from twisted.internet import reactor as installed  # noqa: E402 - only after the monotonic one is installed
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.endpoints import UNIXClientEndpoint  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402

from cloudmytask.client import NodeClient, connect  # noqa: E402
from cloudmytask.client.sources import Source  # noqa: E402
from cloudmytask.model.job import JobSpec, JobState  # noqa: E402

T = TypeVar("T")
reactor: Any = installed


def connected(socket: Path, client: str = "bench") -> Deferred[NodeClient]:
    """A connection to the node whose socket this is."""
    return connect(UNIXClientEndpoint(reactor, str(socket)), reactor, client)


def sleep(seconds: float) -> Deferred[None]:
    """Let time pass."""
    return deferLater(reactor, max(0.0, seconds))


async def run_one(client: NodeClient, source: Source, where: str | None = None, **options: Any) -> None:
    """Submit and wait."""
    job = await client.submit(JobSpec(script=source.blob, **options), source)
    ended = await client.wait(job.id)
    assert ended.state is JobState.SUCCEEDED and where in (None, ended.executor), ended.document


def live(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """Run the reactor until the work is done.

    :raises SystemExit: the work failed; its traceback was printed. Ctrl-C ended it.
    """
    results: list[T] = []
    done = Deferred.fromCoroutine(work)
    done.addCallback(results.append)
    done.addErrback(lambda failure: failure.printTraceback(sys.stderr))
    if not done.called:
        done.addBoth(lambda _: reactor.stop())
        reactor.run()
    if not results:
        done.cancel()
        raise SystemExit(1)
    return results[0]
