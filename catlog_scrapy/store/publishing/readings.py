"""Readings: the done attempts of an operation, and the time for which each one's data is valid."""

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import rows, scalar

logger = logging.getLogger(__name__)

MICROSECOND = dt.timedelta(microseconds=1)


class Reading(NamedTuple):
    """Done attempt that read a part of an operation's source.

    Rows of the attempt are numbered below `accepted`: a doubled worker may add further rows.
    `dropped` counts the items that the project's pipelines dropped.
    `read_at` is the time by the server's clock, from which a record is fresh.
    """

    instance: UUID
    attempt: int
    accepted: int
    dropped: int
    part: str
    as_of: dt.datetime
    read_at: dt.datetime


def read_readings(
    connection: Connection, catalog_id: UUID, operation_id: UUID, *, own_as_of: dt.datetime | None
) -> list[Reading]:
    """Return the readings of an operation, by part.

    *own_as_of* is the time of a catalog whose arguments contain its due time; any other reading is
    as of the start of its attempt.
    """
    found = rows(
        connection,
        """SELECT i.id AS instance, i.attempt, a.accepted, a.dropped, i.part,
               coalesce(CAST(:own AS timestamptz), a.as_of) AS as_of,
               least(CAST(:own AS timestamptz), a.started_at) AS read_at
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
           WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
           ORDER BY i.part COLLATE "C" """,
        catalog=catalog_id,
        operation=operation_id,
        own=own_as_of,
    )
    return [Reading(**reading) for reading in found]


def move_behind_mark(
    connection: Connection,
    readings: Sequence[Reading],
    mark: dt.datetime | None,
    *,
    provider: UUID,
    kinds: Iterable[KindDefinition],
) -> list[Reading]:
    """Return the readings, later than all records of *kinds* if the *mark* lies in the future.

    Such a mark is ahead of the clock of readings, which never goes back: the clock's sequence was
    not restored or replicated with the tables. The clock then continues from the newest record.
    """
    if mark is None or all(reading.as_of >= mark for reading in readings):
        return list(readings)
    behind = scalar(
        connection,
        """SELECT CAST(:mark AS timestamptz) > greatest(clock_timestamp(),
               timestamptz 'epoch' + last_value * interval '1 microsecond')
           FROM catlog.reading_clock""",
        mark=mark,
    )
    if not behind:
        return list(readings)
    logger.warning("the database's clock stands behind the newest high-water mark, %s", mark)
    of_provider = "_provider = (SELECT number FROM catlog.provider WHERE id = :provider)"
    newest = [
        scalar(
            connection,
            f"SELECT max(_as_of) FROM {kind.table} WHERE {of_provider}",
            provider=provider,
        )
        for kind in kinds
    ]
    newest.append(scalar(connection, "SELECT max(as_of) FROM catlog.part_mark"))
    latest = max([mark, *(time for time in newest if time is not None)])
    times = sorted({reading.as_of for reading in readings})
    moved = {time: latest + MICROSECOND * number for number, time in enumerate(times, 1)}
    scalar(
        connection,
        """SELECT setval('catlog.reading_clock',
               CAST(extract(epoch FROM CAST(:last AS timestamptz)) * 1000000 AS bigint))""",
        last=moved[times[-1]],
    )
    return [reading._replace(as_of=moved[reading.as_of]) for reading in readings]


def as_parameters(readings: Iterable[Reading]) -> Mapping[str, Any]:
    """Return the readings as parameters of READINGS."""
    listed = list(readings)
    return {
        "instances": [str(reading.instance) for reading in listed],
        "attempts": [reading.attempt for reading in listed],
        "accepted": [reading.accepted for reading in listed],
        "parts": [reading.part for reading in listed],
        "as_ofs": [reading.as_of for reading in listed],
        "read_ats": [reading.read_at for reading in listed],
        "first_instance": min((reading.instance for reading in listed), default=None),
        "last_instance": max((reading.instance for reading in listed), default=None),
    }


# The number of a reading is its position; the empty part is NULL, as in the record tables.
READINGS = """(
    SELECT instance, attempt, accepted, nullif(part, '') AS part, as_of, read_at, number
    FROM unnest(CAST(:instances AS uuid[]), CAST(:attempts AS int[]), CAST(:accepted AS bigint[]),
        CAST(:parts AS text[]), CAST(:as_ofs AS timestamptz[]), CAST(:read_ats AS timestamptz[]))
        WITH ORDINALITY AS given (instance, attempt, accepted, part, as_of, read_at, number))"""
