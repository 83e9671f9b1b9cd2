"""Connection watchdog: ends statements when the database sends no data."""

import io
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, exc, text

from catlog_scrapy.api.maintenance import MaintenanceThread
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.watchdog import WatchedCursor
from catlog_scrapy.store.publishing.publish import publish_next
from catlog_scrapy.store.queue import executors as external
from catlog_scrapy.store.queue.catalog_states import lock_catalog
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.sql import transaction
from tests.support.factories import (
    an_operation,
    at_once,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    given_a_waiting_catalog,
    sql,
    state_of,
)
from tests.support.proxy import Proxy
from tests.support.waiting import WAIT_LIMIT_S


def test_statement_on_a_silent_database_ends(database_url: str) -> None:
    with Proxy(database_url) as proxy:
        engine = make_engine(proxy.url, statement_timeout=1.0, connect_timeout=0.5)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            proxy.freeze()
            began = time.monotonic()
            with pytest.raises(exc.OperationalError):
                connection.execute(text("SELECT 2"))
            assert 1.4 < time.monotonic() - began < 25
        began = time.monotonic()
        with pytest.raises(exc.OperationalError), engine.connect():
            pass
        assert time.monotonic() - began < 25
        proxy.thaw()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 3")) == 3
        engine.dispose()


def test_slow_copy_that_sends_rows_is_not_silent(database_url: str) -> None:
    engine = make_engine(database_url, statement_timeout=1.5, connect_timeout=1.0)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        driver = connection.connection.driver_connection
        assert driver
        to = io.BytesIO()
        with driver.cursor() as cursor:
            assert isinstance(cursor, WatchedCursor)
            rows = "SELECT repeat('x', 20000), pg_sleep(0.4) FROM generate_series(1, 8)"
            cursor.copy_expert(f"COPY ({rows}) TO STDOUT", to)
        assert to.getvalue().count(b"\n") == 8
    engine.dispose()


def sleeping_on(engine: Engine, table: str) -> None:
    """Make each insert into *table* slower than the statement timeout of `hurried`."""
    sql(
        engine,
        """CREATE FUNCTION catlog.dream() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM pg_sleep(1.5); RETURN NULL; END $$""",
    )
    sql(
        engine,
        f"""CREATE TRIGGER dream AFTER INSERT ON catlog.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION catlog.dream()""",
    )


@pytest.fixture
def hurried(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, statement_timeout=0.4, connect_timeout=0.3)
    yield made
    made.dispose()


def test_publish_may_exceed_the_statement_timeout_that_applies_again_afterwards(
    engine: Engine, hurried: Engine
) -> None:
    given_a_scheme(engine)
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    sleeping_on(engine, "publication")
    assert publish_next(hurried) == catalog
    with hurried.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver
        assert driver.seconds == pytest.approx(0.7)


def test_end_of_an_attempt_may_take_longer_than_the_statement_timeout(
    engine: Engine, hurried: Engine
) -> None:
    given_a_scheme(engine, an_operation(executor="external"))
    catalog = given_a_catalog(engine)
    [claimed] = claim(engine, "key:robot/1", catalogs=[catalog], lease=60.0, executor="external")

    def hold() -> None:
        with engine.begin() as connection:
            lock_catalog(connection, catalog)
            held.set()
            time.sleep(1.5)

    def complete() -> str:
        assert held.wait(WAIT_LIMIT_S)
        with transaction(hurried) as tx:
            return external.end(tx, claimed.attempt, "key:robot", "complete").outcome

    held = threading.Event()
    assert "done" in at_once(hold, complete)


def test_maintenance_may_exceed_the_statement_timeout(engine: Engine, hurried: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_waiting_catalog(engine)
    sleeping_on(engine, "catalog_scheme_operation_instance")
    maintenance = MaintenanceThread(hurried, lease=60, poll=60)
    maintenance.start()
    maintenance.stop()
    assert state_of(engine, catalog) == "loading"
