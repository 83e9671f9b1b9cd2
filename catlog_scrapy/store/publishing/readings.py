"""Readings: the done attempts of an operation, and the time for which each one's data is valid."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.sql import rows


class Reading(NamedTuple):
    """Done attempt that read a part of an operation's source.

    Rows of the attempt are numbered below `accepted`: a doubled worker may add further rows.
    """

    instance: UUID
    attempt: int
    accepted: int
    part: str
    as_of: dt.datetime


def read_readings(
    connection: Connection, catalog_id: UUID, operation_id: UUID, *, own_as_of: dt.datetime | None
) -> list[Reading]:
    """Return the readings of an operation, by part.

    *own_as_of* is the time of a catalog whose arguments contain its due time; any other reading is
    as of the start of its attempt.
    """
    found = rows(
        connection,
        """SELECT i.id AS instance, i.attempt, a.accepted, i.part,
               coalesce(CAST(:own AS timestamptz), a.as_of) AS as_of
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
           WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
           ORDER BY i.part COLLATE "C" """,
        catalog=catalog_id,
        operation=operation_id,
        own=own_as_of,
    )
    return [Reading(**reading) for reading in found]


def as_parameters(readings: Iterable[Reading]) -> Mapping[str, Any]:
    """Return the readings as parameters of READINGS."""
    listed = list(readings)
    return {
        "instances": [str(reading.instance) for reading in listed],
        "attempts": [reading.attempt for reading in listed],
        "accepted": [reading.accepted for reading in listed],
        "parts": [reading.part for reading in listed],
        "as_ofs": [reading.as_of for reading in listed],
        "first_instance": min((reading.instance for reading in listed), default=None),
        "last_instance": max((reading.instance for reading in listed), default=None),
    }


# The number of a reading is its position; the empty part is NULL, as in the record tables.
READINGS = """(
    SELECT instance, attempt, accepted, nullif(part, '') AS part, as_of, number
    FROM unnest(CAST(:instances AS uuid[]), CAST(:attempts AS int[]), CAST(:accepted AS bigint[]),
        CAST(:parts AS text[]), CAST(:as_ofs AS timestamptz[]))
        WITH ORDINALITY AS given (instance, attempt, accepted, part, as_of, number))"""
