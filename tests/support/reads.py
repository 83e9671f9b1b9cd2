"""Rows that the statements of functions read, which EXPLAIN does not show."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine, text


def entries_read(engine: Engine, tables: Sequence[str], call: Callable[[], Any]) -> int:
    """Return the index entries, dead ones included, and the rows that *call* reads of *tables*.

    The tables are those of the schema catlog. The engine's pool must have only one idle connection:
    a session reports its statistics itself.
    """
    before = _read(engine, tables)
    call()
    return _read(engine, tables) - before


def _read(engine: Engine, tables: Sequence[str]) -> int:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        found = connection.execute(
            text(
                """SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
                           WHERE schemaname = 'catlog' AND relname = ANY(:tables))
                    + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
                       WHERE schemaname = 'catlog' AND relname = ANY(:tables))"""
            ),
            {"tables": list(tables)},
        )
        return int(found.scalar_one())
