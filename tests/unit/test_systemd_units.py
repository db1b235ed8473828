"""The systemd units: what the node relies on stands in them."""

from __future__ import annotations

import re
from pathlib import Path

UNITS = Path(__file__).parents[2] / "systemd"


def _settings(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (UNITS / unit).read_text(), re.MULTILINE))


def test_a_script_that_is_killed_for_want_of_memory_ends_no_other() -> None:
    settings = _settings("cmt-node.service")
    assert settings["OOMPolicy"] == "continue", "systemd's default ends the whole unit"
    assert settings["KillMode"] == "mixed", "scripts are ended by the node"
