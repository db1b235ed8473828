"""Fixtures of the lab: it is there, or the test is skipped with the reason."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.lab.cluster import Cluster, serving
from tests.lab.lan import Lan
from tests.lab.obstacle import obstacle


@pytest.fixture(scope="package", autouse=True)
def possible() -> None:
    """Skip where there can be no lab."""
    if (why := obstacle()) is not None:
        pytest.skip(why)


@pytest.fixture(scope="module")
def lan(possible: None) -> Iterator[Lan]:
    """Five hosts, for all tests of a module."""
    with Lan() as made:
        yield made


@pytest.fixture(scope="module")
def nodes(lan: Lan) -> Iterator[Cluster]:
    """A node on each of them and a CSU, for all tests of a module."""
    with serving(lan) as made:
        yield made


@pytest.fixture
def cluster(nodes: Cluster) -> Iterator[Cluster]:
    """The same; what a test breaks is made whole after it."""
    yield nodes
    nodes.complete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """The files of the lab end with it, so a failure shows the logs."""
    report: pytest.TestReport = yield
    found = getattr(item, "funcargs", {}).get("nodes")
    if report.failed and isinstance(found, Cluster):
        report.sections.append(("logs of the cluster", found.logs()))
    return report
