"""No test leaves a script running: a node that ends in order has none, and who kills a node kills its scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.daemons import left_running, sweep_below


@pytest.fixture(scope="module", autouse=True)
def no_script_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Looked at when the nodes that a module's tests share have ended, too."""
    yield
    ours = tmp_path_factory.getbasetemp()
    left = left_running(ours)
    sweep_below(ours)
    assert left == {}
