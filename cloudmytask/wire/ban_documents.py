"""Bans and reports as JSON documents, between instances and for clients.

Invariant: decoding checks every field and raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudmytask.core.admission import check_client
from cloudmytask.core.spec_document import boolean, count, mapping, text, texts, typed
from cloudmytask.model.cluster import Ban, BanReport, BanVersion
from cloudmytask.wire.peer_documents import finite, name, node_id, printable, several

Json = dict[str, Any]

BANS_MAX = 2000
"""Bans in one message."""


def ban_to_document(ban: Ban) -> Json:
    """A ban; ``remaining`` in seconds."""
    return {
        "client": ban.client,
        "reason": ban.reason,
        "by": ban.by,
        "term": ban.term,
        "remaining": ban.until,
        "counter": ban.version.counter,
        "admin": ban.version.admin,
        "version_by": ban.version.node_id,
        "lifted": ban.lifted,
        "reporters": list(ban.reporters),
    }


def ban_from_document(field: str, document: object) -> Ban:
    """:raises InvalidArgument:"""
    fields = mapping(field, document)
    return Ban(
        client=check_client(text("client", fields.get("client"))),
        reason=printable("reason", fields.get("reason"), 500),
        by=printable("by", fields.get("by"), 200),
        term=finite("term", fields.get("term")),
        until=finite("remaining", fields.get("remaining")),
        version=BanVersion(
            counter=count("counter", fields.get("counter")),
            admin=boolean("admin", fields.get("admin")),
            node_id=node_id("version_by", fields.get("version_by")),
        ),
        lifted=typed(fields, "lifted", boolean, False),
        reporters=texts("reporters", fields.get("reporters", []))[:10],
    )


def bans_to_document(bans: Sequence[Ban]) -> Json:
    """What ``ExchangeBans`` sends and answers."""
    return {"bans": [ban_to_document(ban) for ban in bans]}


def bans_from_document(document: object) -> tuple[Ban, ...]:
    """:raises InvalidArgument:"""
    return several("bans", mapping("bans", document).get("bans"), ban_from_document, BANS_MAX)


def report_to_document(report: BanReport) -> Json:
    """What ``AddToBlackListRequest`` sends."""
    return {
        "client": report.client,
        "reason": report.reason,
        "reporter": report.reporter,
        "name": report.reporter_name,
        "count": report.count,
    }


def report_from_document(document: object) -> BanReport:
    """:raises InvalidArgument:"""
    fields = mapping("report", document)
    return BanReport(
        client=check_client(text("client", fields.get("client"))),
        reason=printable("reason", fields.get("reason"), 500),
        reporter=node_id("reporter", fields.get("reporter")),
        reporter_name=name("name", fields.get("name")),
        count=count("count", fields.get("count")),
    )
