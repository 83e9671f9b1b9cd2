"""The schema's versions. Alembic does it; here it is called, under a lock."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.db.engine import SCHEMA
from catlog_scrapy.exceptions import SchemaMismatch

# Any number that nobody else uses for an advisory lock in this database.
MIGRATION_LOCK = 4_226_001


def configuration() -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The newest revision that this catlog knows."""
    return ScriptDirectory.from_config(configuration()).get_current_head() or ""


def revision(connection: Connection) -> str | None:
    """The revision the database is at; None where there is no catlog schema."""
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()


def require_head(engine: Engine) -> None:
    """Raise SchemaMismatch unless the database is at this catlog's revision."""
    with engine.connect() as connection:
        found = revision(connection)
    if found == head():
        return
    if found is None:
        raise SchemaMismatch("the database has no catlog schema; run scrapy migrate.")
    _refuse_newer(found)
    raise SchemaMismatch(f"the database is at revision {found}; run scrapy migrate.")


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to this catlog's revision, in one transaction, under a lock.

    Returns the revisions before and after. Raises SchemaMismatch for a newer database.
    """
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        before = revision(connection)
        if before != head():
            if before is not None:
                _refuse_newer(before)
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, head()


def _refuse_newer(found: str) -> None:
    known = {
        script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()
    }
    if found not in known:
        raise SchemaMismatch(
            f"the database is at revision {found}, which this catlog does not know;"
            " install the catlog that made it, or a newer one."
        )
