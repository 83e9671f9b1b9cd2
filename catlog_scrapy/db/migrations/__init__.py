"""Revisions of catlog's schema, which Alembic applies under a lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catlog_scrapy.exceptions import SchemaMismatch

if TYPE_CHECKING:  # importing Alembic and SQLAlchemy takes a second, and most commands only check
    from sqlalchemy import Connection, Engine

FOLDER = Path(__file__).parent
# Any number that no other advisory lock in this database has.
MIGRATION_LOCK = 4_226_001


@cache
def revisions() -> list[str]:
    """Return all revisions, oldest first: the names of their files begin with them."""
    files = (FOLDER / "versions").glob("[0-9]*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def head() -> str:
    """Return the newest revision that this catlog knows."""
    return revisions()[-1]


def revision(scalar: Callable[[str], Any]) -> str | None:
    """Return the revision of the database that *scalar* asks; None where catlog has no schema."""
    if scalar("SELECT to_regclass('catlog.alembic_version')") is None:
        return None
    found: str | None = scalar("SELECT version_num FROM catlog.alembic_version")
    return found


def revision_of(connection: Connection) -> str | None:
    """Return the revision of SQLAlchemy's *connection*."""
    return revision(lambda sql: connection.exec_driver_sql(sql).scalar())


def require_head(engine: Engine) -> None:
    """Raise SchemaMismatch unless the database is at this catlog's revision."""
    with engine.connect() as connection:
        found = revision_of(connection)
    if found == head():
        return
    if found is None:
        raise SchemaMismatch("the database has no catlog schema; run scrapy migrate")
    _refuse_newer(found)
    raise SchemaMismatch(f"the database is at revision {found}; run scrapy migrate")


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to this catlog's revision, in one transaction, under a lock.

    Returns the revisions before and after. Raises SchemaMismatch for a newer database.
    """
    from sqlalchemy import text

    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        before = revision_of(connection)
        if before != head():
            if before is not None:
                _refuse_newer(before)
            _run_alembic(connection)
    return before, head()


def _run_alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()  # without a file
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_newer(found: str) -> None:
    if found not in revisions():
        raise SchemaMismatch(
            f"the database is at revision {found}, which this catlog does not know;"
            " install the catlog that made it, or a newer one"
        )
