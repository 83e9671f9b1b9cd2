"""Connections that die."""

import pytest
from sqlalchemy import Engine, exc, text

from catlog_scrapy.db import watchdog
from catlog_scrapy.db.engine import make_engine
from tests.support.looking import rows


def test_a_server_replaces_connections_that_died(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_engine(database_url, connect_timeout=3)

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
