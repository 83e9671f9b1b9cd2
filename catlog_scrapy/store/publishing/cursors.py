"""Cursors at publish time: the range that attempts have read, and moving to its end."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.queue.resuming import MOVES_CURSOR
from catlog_scrapy.store.sql import rows, run


@dataclass(frozen=True)
class CursorRange:
    """Range of the source that the done attempts of an incremental operation have read.

    `superseded` are the parts that did not start from the present cursor because another load was
    published meanwhile; that load, or the next one, has what they read. `is_full` says that every
    part was read from the beginning to a cursor.
    """

    superseded: list[str]
    is_full: bool


def read_cursor_range(
    connection: Connection, catalog_id: UUID, operation_id: UUID, scope_id: UUID
) -> CursorRange | None:
    """Return the range that an operation's attempts have read; None if no cursor moves."""
    parts = rows(
        connection,
        f"""SELECT i.part,
                a.read_from = '' AND a.read_to IS NOT NULL AS is_full,
                CASE WHEN k.operation_id = i.operation_id THEN k.value <> a.read_from
                     WHEN later.id IS NOT NULL THEN true
                     ELSE a.read_from <> '' END AS superseded
            FROM catlog.catalog c
            JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
            JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
            JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
            LEFT JOIN catlog.cursor k ON k.scope_id = :scope AND k.part = i.part
            LEFT JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
            LEFT JOIN catlog.catalog_scheme later
                ON later.id = o.scheme_id AND later.version > s.version
            WHERE c.id = :catalog AND i.operation_id = :operation AND i.state = 'done'
              AND a.read_from IS NOT NULL AND {MOVES_CURSOR}""",
        scope=scope_id,
        catalog=catalog_id,
        operation=operation_id,
    )
    if not parts:
        return None
    return CursorRange(
        superseded=[part["part"] for part in parts if part["superseded"]],
        is_full=all(part["is_full"] for part in parts),
    )


def move_cursors(
    connection: Connection,
    catalog_id: UUID,
    operation_id: UUID,
    scope_id: UUID,
    stays: Iterable[str],
) -> None:
    """Store the end of the range as the cursor of every part that is not in *stays*."""
    run(
        connection,
        """INSERT INTO catlog.cursor (scope_id, part, operation_id, value, catalog_id)
           SELECT :scope, i.part, i.operation_id, a.read_to, i.catalog_id
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
           WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
             AND a.read_to IS NOT NULL AND NOT i.part = ANY(CAST(:stays AS text[]))
           ON CONFLICT (scope_id, part) DO UPDATE SET operation_id = excluded.operation_id,
               value = excluded.value, catalog_id = excluded.catalog_id""",
        scope=scope_id,
        catalog=catalog_id,
        operation=operation_id,
        stays=list(stays),
    )


def delete_cursors(connection: Connection, scope_id: UUID, kept: Iterable[str]) -> None:
    """Delete the cursors of all other parts than *kept*.

    The records of such a part are removed; if the part returns, its source is read from the
    beginning.
    """
    run(
        connection,
        """DELETE FROM catlog.cursor
           WHERE scope_id = :scope AND NOT part = ANY(CAST(:kept AS text[]))""",
        scope=scope_id,
        kept=list(kept),
    )
