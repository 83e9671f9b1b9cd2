"""What an attempt need not read again: from where it goes on, and what is fresh."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.scheduling.cursor import start
from catlog_scrapy.store.claims import Claim
from catlog_scrapy.store.transactions import row, rows, run

# A narrowed load, and one for the past, neither goes on from a cursor nor moves it.
MOVES_CURSOR = "c.whole AND c.origin <> 'backfill'"


def go_on_from(engine: Engine, claim: Claim) -> str:
    """The cursor that an incremental attempt goes on from, less its overlap; "" for the beginning.

    It is written down with the attempt. Raises CursorError.
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
        cursor = start(found["value"], claim.limits.get("overlap")) if found else ""
        run(
            connection,
            """UPDATE catlog.instance_attempt SET read_from = :cursor
               WHERE instance_id = :instance AND attempt = :number""",
            cursor=cursor,
            instance=claim.attempt.instance,
            number=claim.attempt.number,
        )
    return cursor


def move_cursors(
    connection: Connection, catalog_id: UUID, operation_id: UUID, scope_id: UUID
) -> None:
    """Publish how far the done attempts of an operation have read.

    Not where a newer load has said it already: what this one read, that one did too, or it is read
    once more.
    """
    run(
        connection,
        f"""INSERT INTO catlog.cursor (scope_id, part, operation_id, value, as_of, catalog_id)
            SELECT :scope, i.part, i.operation_id, a.read_to, c.as_of, c.id
            FROM catlog.catalog c
            JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
            JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
            WHERE c.id = :catalog AND i.operation_id = :operation AND i.state = 'done'
              AND a.read_to IS NOT NULL AND {MOVES_CURSOR}
            ON CONFLICT (scope_id, part) DO UPDATE SET operation_id = excluded.operation_id,
                value = excluded.value, as_of = excluded.as_of, catalog_id = excluded.catalog_id
            WHERE cursor.as_of <= excluded.as_of""",
        scope=scope_id,
        catalog=catalog_id,
        operation=operation_id,
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
                 AND r.read_at > clock_timestamp() - make_interval(secs => :every)""",
            provider=claim.provider,
            kinds=[kind["name"] for kind in claim.kinds],
            by=refresh["by"],
            every=refresh["every"],
        )
    alone = all(len(kind["key"]) == 1 for kind in claim.kinds)
    return {
        record["by"]: [record["key"]] if alone else orjson.loads(record["key"])
        for record in found
        if record["by"] is not None
    }
