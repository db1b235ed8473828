"""Cloud My Task: run Python scripts on whichever machine of your network is not busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudmytask.version import VERSION

if TYPE_CHECKING:
    from cloudmytask.client import Client as Client
    from cloudmytask.model.errors import JobFailed as JobFailed

__version__ = VERSION
__all__ = ["Client", "JobFailed", "__version__"]


def __getattr__(name: str) -> Any:
    """The client library loads Twisted, so it is imported only where it is used."""
    if name == "Client":
        from cloudmytask.client import Client

        return Client
    if name == "JobFailed":
        from cloudmytask.model.errors import JobFailed

        return JobFailed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
