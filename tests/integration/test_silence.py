"""A database that is there and says nothing."""

import io
import time

import pytest
from sqlalchemy import exc, text

from catlog_scrapy.database import make_engine
from catlog_scrapy.silence import Cursor
from tests.proxy import Proxy


def test_who_waits_for_a_silent_database_goes_on(database_url: str) -> None:
    with Proxy(database_url) as proxy:
        engine = make_engine(proxy.url, statement_timeout=1.0, patience=0.5)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            proxy.freeze()
            began = time.monotonic()
            with pytest.raises(exc.OperationalError):
                connection.execute(text("SELECT 2"))
            assert 1.4 < time.monotonic() - began < 5
        began = time.monotonic()
        with pytest.raises(exc.OperationalError), engine.connect():
            pass
        assert time.monotonic() - began < 5
        proxy.thaw()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 3")) == 3
        engine.dispose()


def test_what_goes_on_is_not_silent(database_url: str) -> None:
    engine = make_engine(database_url, statement_timeout=0.5, patience=0.3)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        driver = connection.connection.driver_connection
        assert driver
        to = io.BytesIO()
        with driver.cursor() as cursor:
            assert isinstance(cursor, Cursor)
            rows = "SELECT repeat('x', 20000), pg_sleep(0.3) FROM generate_series(1, 8)"
            cursor.copy_expert(f"COPY ({rows}) TO STDOUT", to)
        assert to.getvalue().count(b"\n") == 8
    engine.dispose()
