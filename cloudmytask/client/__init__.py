"""The client library: :class:`Client`, blocking, for scripts and threads; :func:`connect`, for Twisted programs."""

from cloudmytask.client.blocking import Client, Job
from cloudmytask.client.connecting import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.result import Result

__all__ = ["Client", "Job", "NodeClient", "Result", "connect"]
