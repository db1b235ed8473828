"""The client library: :class:`Client`, blocking, for scripts and threads; :func:`connect`, for Twisted programs."""

from cloudmytask.client.blocking import Client, JobHandle
from cloudmytask.client.connection import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.result import Result
from cloudmytask.wire.documents import JobStatus

__all__ = ["Client", "JobHandle", "JobStatus", "NodeClient", "Result", "connect"]
