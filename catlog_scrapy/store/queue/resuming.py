"""Resuming: the cursor of an incremental attempt, and the records that are fresh."""

from collections import Counter
from typing import Any

import orjson
from sqlalchemy import Engine

from catlog_scrapy.scheduling.cursor import apply_overlap
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.record_tables.reading import current_records
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import Database, row, run

# Partial loads and backfills neither resume from a cursor nor move it.
MOVES_CURSOR = "c.is_full AND c.origin <> 'backfill'"


def resume_cursor(engine: Database, claim: Claim) -> str:
    """Return the cursor from which an incremental attempt resumes; "" is the beginning.

    The operation's overlap is subtracted. The attempt stores the cursor itself as `read_from`.
    Raises CursorError.
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
    return apply_overlap(cursor, claim.limits.get("overlap")) if cursor else ""


def fresh_records(engine: Engine, claim: Claim) -> dict[str, list[Any]]:
    """Return the keys of the records that are too fresh to be read again.

    The dictionary is keyed by the field that the operation's `refresh` names, as text. A key of
    several fields is a list of their values.
    """
    refresh = claim.limits["refresh"]
    by = refresh["by"]
    with engine.connect() as connection:
        kinds = all_kinds(connection)
        found = [
            record
            for kind in claim.kinds
            for record in current_records(
                connection,
                kinds[kind["name"]],
                FRESH,
                fields=[by],
                catalog=claim.catalog,
                provider=claim.provider,
                every=refresh["every"],
            )
            if record.fields.get(by) is not None
        ]
    # A value that several records share does not identify a record.
    times = Counter(_text(record.fields[by]) for record in found)
    # The text of a jsonb key is JSON, which is not the value.
    alone = all(
        len(kind["key"]) == 1 and kinds[kind["name"]].key_types != ("jsonb",)
        for kind in claim.kinds
    )
    return {
        _text(record.fields[by]): [record.key] if alone else record.key_values
        for record in found
        if times[_text(record.fields[by])] == 1
    }


# Records that another version has read may lack a field. A time ahead is that of a wrong clock.
FRESH = """_provider = (SELECT number FROM catlog.provider WHERE name = :provider)
    AND _read_at > clock_timestamp() - make_interval(secs => :every)
    AND _read_at <= clock_timestamp()
    AND _read_at >= (
        SELECT least(
            (SELECT min(created_at) FROM catlog.catalog WHERE scheme_id = own.scheme_id),
            (SELECT min(first_created_at) FROM catlog.catalog_summary
             WHERE scheme_id = own.scheme_id))
        FROM catlog.catalog own WHERE own.id = :catalog)"""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
