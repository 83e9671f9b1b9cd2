"""Migrations: equal to the models, applied once, and refused for an unknown revision."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine

from catlog_scrapy.db.engine import SCHEMA, make_engine
from catlog_scrapy.db.migrations import FOLDER, head, require_head, revision_of, revisions, upgrade
from catlog_scrapy.exceptions import SchemaMismatch
from catlog_scrapy.models.base import Base
from catlog_scrapy.store.queue.result_partitions import DEFAULT_PARTITION
from tests.support.factories import at_once, sql
from tests.support.postgres import Postgres


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Engine]:
    """Return an engine on an empty database."""
    with postgres.clone("template0") as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


def present_revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return revision_of(connection)


def test_migrated_tables_match_models(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table_schema": SCHEMA,
                "include_schemas": True,
                "include_name": lambda name, type_, _: type_ != "schema" or name == SCHEMA,
                "include_object": lambda _, name, type_, *__: (
                    type_ != "table" or name != DEFAULT_PARTITION
                ),
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, Base.metadata) == []


def test_revisions_read_from_file_names_match_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions() == known[::-1]


def test_check_constraints_match_models(engine: Engine) -> None:
    """Alembic does not compare check constraints or their allowed values."""
    found = sql(
        engine,
        """SELECT conname, pg_get_constraintdef(oid) AS says FROM pg_constraint
           WHERE contype = 'c' AND connamespace = 'catlog'::regnamespace AND coninhcount = 0""",
    )
    made = {each["conname"]: words(each["says"]) for each in found}
    declared = {
        str(constraint.name): words(str(constraint.sqltext))
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert made == declared


def words(condition: str) -> set[str]:
    return set(condition.split("'")[1::2])


def test_second_upgrade_changes_nothing(empty: Engine) -> None:
    assert present_revision(empty) is None
    with pytest.raises(SchemaMismatch, match="run scrapy migrate"):
        require_head(empty)
    assert upgrade(empty) == (None, head())
    assert upgrade(empty) == (head(), head())
    require_head(empty)


def test_two_upgrades_at_once_make_one_schema(empty: Engine) -> None:
    answers = at_once(*[lambda: upgrade(empty)] * 3)
    assert sorted(answers, key=str) == sorted(
        [(None, head()), (head(), head()), (head(), head())], key=str
    )
    require_head(empty)


def test_newer_database_is_refused_and_left_unchanged(engine: Engine) -> None:
    sql(engine, "UPDATE catlog.alembic_version SET version_num = 'later'")
    for refused in (upgrade, require_head):
        with pytest.raises(SchemaMismatch, match="later, which this catlog does not know"):
            refused(engine)
    assert present_revision(engine) == "later"


def test_public_schema_has_no_catlog_tables(engine: Engine) -> None:
    """The schema `public` is reserved for views, which readers query."""
    found = sql(
        engine,
        """SELECT c.relname FROM pg_class c
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')""",
    )
    assert found == []
