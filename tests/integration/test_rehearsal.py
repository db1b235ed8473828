"""What is found out before a start, and that it has no further consequences."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from cloudmytask.config import NodeConfig
from cloudmytask.model.errors import StartFailed
from cloudmytask.service.claim import claim
from cloudmytask.service.command_line import rehearse
from cloudmytask.store.database import prepare
from cloudmytask.store.schema import CURRENT_VERSION, STEPS


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig(state=tmp_path / "state")


@pytest.fixture
def database(config: NodeConfig) -> Path:
    config.state.mkdir(mode=0o700)
    path = config.state / "jobs.sqlite"
    prepare(path, STEPS, lambda: "node")
    return path


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_where_there_is_nothing_yet_only_the_directory_is_made(config: NodeConfig) -> None:
    rehearse(config)
    assert [each.name for each in config.state.iterdir()] == ["lock"]


def test_nothing_is_held_afterwards(config: NodeConfig) -> None:
    rehearse(config)
    claim(config).release()


def test_an_old_database_is_not_upgraded(config: NodeConfig, database: Path) -> None:
    change(database, "PRAGMA user_version = 0")
    before = database.read_bytes()
    rehearse(config)
    assert database.read_bytes() == before
    assert sorted(each.name for each in config.state.iterdir()) == ["jobs.sqlite", "lock"]


def test_a_database_of_a_later_version_is_refused(config: NodeConfig, database: Path) -> None:
    change(database, f"PRAGMA user_version = {CURRENT_VERSION + 1}")
    with pytest.raises(StartFailed, match=rf"has schema {CURRENT_VERSION + 1}, .* knows {CURRENT_VERSION}\."):
        rehearse(config)


def test_a_database_of_something_else_is_refused(config: NodeConfig, database: Path) -> None:
    change(database, "PRAGMA application_id = 1")
    with pytest.raises(StartFailed, match="is not a database of Cloud My Task"):
        rehearse(config)
    database.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StartFailed, match=r"jobs\.sqlite cannot be opened: "):
        rehearse(config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_database_that_may_not_be_written_is_refused(config: NodeConfig, database: Path) -> None:
    database.chmod(0o400)
    with pytest.raises(StartFailed, match="Permission denied"):
        rehearse(config)
