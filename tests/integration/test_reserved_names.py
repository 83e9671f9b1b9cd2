"""Names that kinds and fields cannot have, compared with PostgreSQL's own lists."""

from sqlalchemy import Engine

from catlog_scrapy.records.sql_names import RESERVED_WORDS, SYSTEM_COLUMNS, SYSTEM_PREFIX
from tests.support.factories import sql


def test_reserved_words_are_those_of_postgresql(engine: Engine) -> None:
    words = sql(engine, "SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")
    assert {found["word"] for found in words} <= RESERVED_WORDS


def test_system_columns_are_those_of_postgresql(engine: Engine) -> None:
    columns = sql(
        engine,
        """SELECT attname FROM pg_attribute
           WHERE attrelid = 'catlog.catalog'::regclass AND attnum < 0""",
    )
    assert {found["attname"] for found in columns} == SYSTEM_COLUMNS


def test_relations_that_hide_views_have_the_system_prefix(engine: Engine) -> None:
    hiding = sql(
        engine,
        """SELECT relname AS name FROM pg_class
           WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')""",
    )
    assert all(found["name"].startswith(SYSTEM_PREFIX) for found in hiding)
