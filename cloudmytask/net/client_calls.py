"""The commands of clients as one table: how each is decoded, which verb of the API answers it, how that is encoded.

Invariant: every command of clients but the introduction is here, and nowhere else does a command meet its verb.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from cloudmytask.boundaries import Receipt
from cloudmytask.codec import decode, dump, encode
from cloudmytask.codec.people import job_to_document, node_to_document
from cloudmytask.core.job_id import normalize
from cloudmytask.model.cluster import Ban, BanPage, ClusterView
from cloudmytask.model.job import Blob, Job, JobId, JobPage, JobQuery, Offsets, QoS, StreamName
from cloudmytask.wire import commands
from cloudmytask.wire.commands import NodeCommand

PAGE_MAX = 128 * 1024
"""Bytes of jobs in one page of a listing, however many were asked for."""

Answer = dict[str, Any]


def _job_id(text: str) -> JobId:
    return JobId(normalize(text))


def _qos(name: str | None) -> object:
    return None if name is None else decode(QoS, name, "qos")


def _offsets(document: Answer) -> dict[StreamName, int]:
    return dict(decode(Offsets, document, "offsets"))


def _query(document: Answer | None) -> JobQuery:
    query = decode(JobQuery, document or {})
    return evolve(query, prefix=normalize(query.prefix)) if query.prefix else query


def _as_it_is(answer: Any) -> Any:
    return answer


def _job_answer(job: Job) -> Answer:
    return {"job": job_to_document(job)}


def receipt_answer(receipt: Receipt) -> Answer:
    return {"job": job_to_document(receipt.job), "known": receipt.known}


def _ban_answer(ban: Ban) -> Answer:
    return {"ban": encode(ban)}


def _bans_answer(page: tuple[tuple[Ban, ...], str | None]) -> Answer:
    return {"page": encode(BanPage(*page))}


def _cluster_answer(page: tuple[ClusterView, str | None]) -> Answer:
    return {"cluster": {**encode(page[0]), "next": page[1]}}


def _page_answer(page: JobPage) -> Answer:
    """As many of the page's jobs as an answer has room for; the cursor says where to go on."""
    documents: list[dict[str, Any]] = []
    room = PAGE_MAX
    following = page.next
    for job in page.jobs:
        document = job_to_document(job)
        room -= len(dump(document))
        if room < 0 and documents:
            following = page.jobs[len(documents) - 1].sequence
            break
        documents.append(document)
    return {"page": {"jobs": documents, "next": following}}


@frozen
class Call:
    """How one command is answered.

    :ivar verb: the method of :class:`~cloudmytask.api.client_api.ClientApi` that says who may, and answers.
    :ivar decode: by the argument's name; an argument that is left out is taken as it is.
    :ivar encode: makes the answer of what the verb returns.
    :ivar begin: gives, of a session, what is called instead of the verb, with the API first, if something of the
        connection is concerned.
    :ivar heavy: whether one costs much, so that only a few are worked on at a time.
    """

    verb: str
    decode: Mapping[str, Callable[[Any], Any]] = {}
    encode: Callable[[Any], Any] = _as_it_is
    begin: Callable[[Any], Callable[..., Any]] | None = None
    heavy: bool = False


_JOB = {"job": _job_id}

CALLS: Mapping[type[NodeCommand], Call] = {
    commands.DescribeNode: Call("describe", encode=lambda node: {"node": node_to_document(node)}),
    commands.DescribeCluster: Call("cluster", encode=_cluster_answer, heavy=True),
    commands.ListBans: Call("bans", encode=_bans_answer, heavy=True),
    commands.AddBan: Call("ban", encode=_ban_answer),
    commands.LiftBan: Call("lift_ban", encode=_ban_answer),
    commands.LoadHistory: Call(
        "history", encode=lambda found: {"history": {"samples": [encode(each) for each in found]}}, heavy=True
    ),
    commands.SubmitJob: Call("submit", {"qos": _qos}, begin=lambda session: session.submit),
    commands.GetScriptJobStatus: Call("status", _JOB, _job_answer),
    commands.ListJobs: Call("jobs", {"query": _query}, _page_answer, heavy=True),
    commands.CancelJob: Call("cancel", _JOB, _job_answer),
    commands.RetryJob: Call("retry", _JOB, receipt_answer),
    commands.RemoveJob: Call("remove", _JOB, _job_answer),
    commands.ExplainJob: Call("explain", _JOB, lambda explanation: {"explanation": encode(explanation)}, heavy=True),
    commands.WatchJob: Call("watch", _JOB, begin=lambda session: session.watch),
    commands.StreamOutput: Call(
        "output",
        {**_JOB, "offsets": _offsets},
        begin=lambda session: session.stream,
    ),
    commands.FollowEvents: Call("events", begin=lambda session: session.follow),
    commands.Unsubscribe: Call("watch", begin=lambda session: session.unsubscribe),
    commands.BeginUpload: Call(
        "upload",
        {"blob": lambda blob: decode(Blob, blob, "blob")},
        begin=lambda session: lambda _api, upload, blob: session.uploads.begin(upload, blob),
    ),
    commands.UploadPiece: Call(
        "upload", begin=lambda session: lambda _api, upload, offset, data: session.uploads.piece(upload, offset, data)
    ),
    commands.CommitUpload: Call(
        "upload", encode=lambda _blob: {}, begin=lambda session: lambda _api, upload: session.uploads.commit(upload)
    ),
    commands.AbortUpload: Call("upload", begin=lambda session: lambda _api, upload: session.uploads.abort(upload)),
}
"""Every command of clients but the introduction: the one place where a command and its verb meet."""
