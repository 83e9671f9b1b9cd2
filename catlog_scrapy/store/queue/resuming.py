"""What an attempt need not read again: from where it goes on, and what is fresh."""

from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.scheduling.cursor import start
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.sql import Database, row, rows, run

# A narrowed load, and one for the past, neither goes on from a cursor nor moves it.
MOVES_CURSOR = "c.whole AND c.origin <> 'backfill'"


def go_on_from(engine: Database, claim: Claim) -> str:
    """The cursor that an incremental attempt goes on from, less its overlap; "" for the beginning.

    The cursor itself is written down with the attempt. Raises CursorError.
    """
    with engine.begin() as connection:
        found = row(
            connection,
            f"""SELECT k.value FROM catlog.catalog c
                JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
                JOIN catlog.scope ON scope.provider_id = c.provider_id
                    AND scope.scheme_name = s.name AND scope.operation_name = :operation
                JOIN catlog.cursor k ON k.scope_id = scope.id AND k.part = :part
                    AND k.operation_id = :operation_id
                WHERE c.id = :catalog AND {MOVES_CURSOR}""",
            catalog=claim.catalog,
            operation=claim.operation,
            operation_id=claim.operation_id,
            part=claim.part,
        )
        cursor = found["value"] if found else ""
        run(
            connection,
            """UPDATE catlog.instance_attempt SET read_from = :cursor
               WHERE instance_id = :instance AND attempt = :number""",
            cursor=cursor,
            instance=claim.attempt.instance,
            number=claim.attempt.number,
        )
    return start(cursor, claim.limits.get("overlap")) if cursor else ""


@dataclass(frozen=True)
class Reading:
    """What the done attempts of an incremental operation have read, for its publishing.

    `as_of` is when the first of them began: nothing of it is older. `superseded` are the parts
    that did not go on from the present cursor, since another load has published meanwhile: what
    they have read, that one has read too, or the next one will. `is_whole` says that all parts were
    read from the beginning to a cursor.
    """

    as_of: Any
    superseded: list[str]
    is_whole: bool


def reading_of(
    connection: Connection, catalog_id: UUID, operation_id: UUID, scope_id: UUID
) -> Reading | None:
    """What an operation's attempts have read; None where they had no cursor to move."""
    parts = rows(
        connection,
        f"""SELECT i.part, a.started_at,
                a.read_from = '' AND a.read_to IS NOT NULL AS is_whole,
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
    return Reading(
        as_of=min(part["started_at"] for part in parts),
        superseded=[part["part"] for part in parts if part["superseded"]],
        is_whole=all(part["is_whole"] for part in parts),
    )


def move_cursors(
    connection: Connection,
    catalog_id: UUID,
    operation_id: UUID,
    scope_id: UUID,
    reading: Reading,
) -> None:
    """Publish how far the done attempts of an operation have read, but for superseded parts."""
    run(
        connection,
        """INSERT INTO catlog.cursor (scope_id, part, operation_id, value, catalog_id)
           SELECT :scope, i.part, i.operation_id, a.read_to, i.catalog_id
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
           WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
             AND a.read_to IS NOT NULL AND NOT i.part = ANY(CAST(:superseded AS text[]))
           ON CONFLICT (scope_id, part) DO UPDATE SET operation_id = excluded.operation_id,
               value = excluded.value, catalog_id = excluded.catalog_id""",
        scope=scope_id,
        catalog=catalog_id,
        operation=operation_id,
        superseded=reading.superseded,
    )


def fresh_records(engine: Engine, claim: Claim) -> dict[str, list[Any]]:
    """The keys of the records that were read so lately that they need not be read again.

    By the field that the operation's `refresh` names, as text; the values of a key in its order.
    """
    refresh = claim.limits["refresh"]
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT r.data ->> :by AS by, r.key FROM catlog.record r
               JOIN catlog.provider p ON p.id = r.provider_id AND p.name = :provider
               WHERE r.kind = ANY(:kinds) AND r.removed_at IS NULL
                 AND r.read_at > clock_timestamp() - make_interval(secs => :every)
                 -- What another version has read may lack a field.
                 AND r.read_at >= (
                     SELECT min(made.created_at) FROM catlog.catalog made
                     JOIN catlog.catalog own ON own.scheme_id = made.scheme_id
                     WHERE own.id = :catalog)""",
            catalog=claim.catalog,
            provider=claim.provider,
            kinds=[kind["name"] for kind in claim.kinds],
            by=refresh["by"],
            every=refresh["every"],
        )
    # One that several records share leads to none of them.
    times = Counter(record["by"] for record in found)
    alone = all(len(kind["key"]) == 1 for kind in claim.kinds)
    return {
        record["by"]: [record["key"]] if alone else orjson.loads(record["key"])
        for record in found
        if record["by"] is not None and times[record["by"]] == 1
    }
