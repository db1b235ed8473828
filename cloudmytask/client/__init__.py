"""The client library: :class:`Client`, blocking, for scripts and threads; :func:`connect`, for Twisted programs.

What they answer with is here too, and how it becomes JSON; a program needs nothing of the wire.
"""

from cloudmytask.client.blocking import Client
from cloudmytask.client.connection import connect
from cloudmytask.client.job_handle import JobHandle, Result
from cloudmytask.client.node_client import NodeClient
from cloudmytask.codec.people import JobStatus, ban_to_document, sample_to_document, state_of, view_to_document

__all__ = [
    "Client",
    "JobHandle",
    "JobStatus",
    "NodeClient",
    "Result",
    "ban_to_document",
    "connect",
    "sample_to_document",
    "state_of",
    "view_to_document",
]
