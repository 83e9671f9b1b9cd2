"""Database access: connections that die, rows that must exist, upserts."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine, exc, text

from catlog_scrapy.db import watchdog
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.models import Provider
from catlog_scrapy.store.sql import RowMissing, one, scalar, upsert
from tests.support.waiting import rows


@pytest.mark.parametrize("connect_timeout", [3.0, None], ids=["watched", "unwatched"])
def test_engine_replaces_connections_that_died(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    connect_timeout: float | None,
) -> None:
    server = make_engine(database_url, connect_timeout=connect_timeout)

    def backend() -> int:
        with server.connect() as connection:
            return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)

    def kill(pid: int) -> None:
        rows(engine, "SELECT pg_terminate_backend(:pid, 5000)", pid=pid)

    monkeypatch.setattr(watchdog, "MAX_UNCHECKED_IDLE_S", 60.0)
    used = backend()
    kill(used)
    with pytest.raises(exc.OperationalError):
        backend()
    after = backend()
    assert after != used
    monkeypatch.setattr(watchdog, "MAX_UNCHECKED_IDLE_S", 0.0)
    assert backend() == after
    kill(after)
    assert backend() != after
    server.dispose()


def test_missing_row_that_must_exist_raises_with_its_statement(engine: Engine) -> None:
    with engine.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM catlog.provider") == 0
        with pytest.raises(RowMissing, match=r"no row for {'name': 'acme'}: SELECT \* FROM"):
            one(connection, "SELECT * FROM catlog.provider WHERE name = :name", name="acme")


def test_upsert_inserts_updates_or_leaves_a_row(engine: Engine) -> None:
    def write(title: str, **given: Any) -> Mapping[str, Any]:
        values = {"name": "acme", "title": title, "secrets": [title]}
        with engine.begin() as connection:
            return upsert(connection, Provider, values, conflict=["name"], **given)

    made = write("first")
    assert write("second") == {**made, "title": "second", "secrets": ["second"]}
    assert write("third", where=Provider.title == "first") == {}
    with engine.connect() as connection:
        assert scalar(connection, "SELECT title FROM catlog.provider") == "second"
