"""Partitions of the table of results: one for each day in which instances are made.

The id of an instance begins with the time at which the instance was made (UUID version 7), so that
all results of a catalog lie in one partition, and pruning drops whole days. Results without a
partition of their own go to the default partition, where they are as good as anywhere else.
"""

import datetime as dt
import logging
import time
from bisect import bisect_right
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.store.batch_errors import is_outage
from catlog_scrapy.store.sql import Database, rows, run, scalar

logger = logging.getLogger(__name__)

TABLE = "catalog_operation_instance_result"
DEFAULT_PARTITION = f"{TABLE}_default"
# Any number that no other advisory lock in this database has.
PARTITIONS_LOCK = 4_226_011
DAY = dt.timedelta(days=1)
# Number of days, after today, that have a partition already.
DAYS_AHEAD = 3
# Loads wait behind a waiting lock on the table, or on the default partition, for as long as this.
LOCK_TIMEOUT_MS = 200
# Pauses between two looks at the partitions: usually, and while one cannot be made.
CHECK_INTERVAL_S, RETRY_INTERVAL_S = 3600.0, 60.0
# The first 48 of the 128 bits of an instance's id are the time, in milliseconds since 1970.
TIME_SHIFT = 80

_next_checks: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()


@dataclass(frozen=True, order=True)
class ResultPartition:
    """Partition with the results of the instances that were made on a *day* (UTC)."""

    day: dt.date

    @property
    def name(self) -> str:
        """The name of the partition's table."""
        return f"{TABLE}_{self.day:%Y%m%d}"

    @property
    def bounds(self) -> tuple[UUID, UUID]:
        """The first id of the partition, and the first id after it."""
        return first_id(_start_of(self.day)), first_id(_start_of(self.day + DAY))

    @property
    def end(self) -> dt.datetime:
        """The time from which the partition gets no further instances."""
        return _start_of(self.day + DAY)


def partitions(connection: Connection) -> list[ResultPartition]:
    """Return all partitions but the default one, oldest first."""
    found = rows(
        connection,
        """SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = to_regclass(:parent) AND c.relname ~ '_[0-9]{8}$'""",
        parent=f"catlog.{TABLE}",
    )
    days = (dt.datetime.strptime(each["name"][-8:], "%Y%m%d").date() for each in found)
    return sorted(ResultPartition(day) for day in days)


class TablesOfInstances:
    """Names of the tables that have the results of instances, by the instance's id."""

    def __init__(self, connection: Connection) -> None:
        known = partitions(connection)
        self.names = [partition.name for partition in known]
        self.firsts = [partition.bounds[0].int for partition in known]
        self.ends = [partition.bounds[1].int for partition in known]

    def __getitem__(self, instance: UUID) -> str:
        place = bisect_right(self.firsts, instance.int) - 1
        if place >= 0 and instance.int < self.ends[place]:
            return self.names[place]
        return DEFAULT_PARTITION


def require_partitions(database: Database) -> None:
    """Make the missing partitions of today and of the next days, at most once an hour.

    A partition that cannot be made now is made later: its results go to the default partition.
    """
    if not isinstance(database, Engine) or time.monotonic() < _next_checks.get(database, 0.0):
        return
    pause = CHECK_INTERVAL_S
    with database.connect() as connection:
        today = scalar(connection, "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
        present = set(partitions(connection))
    for number in range(DAYS_AHEAD + 1):
        partition = ResultPartition(today + number * DAY)
        if partition not in present and not create_partition(database, partition):
            pause = RETRY_INTERVAL_S
    _next_checks[database] = time.monotonic() + pause


def create_partition(engine: Engine, partition: ResultPartition) -> bool:
    """Create and attach *partition*; return False if that has to wait.

    A table that is attached locks its parent less than CREATE TABLE ... PARTITION OF, so loads go
    on. A day whose results are in the default partition already stays there.
    """
    first, end = partition.bounds
    try:
        with engine.begin() as connection:
            run(connection, f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            # Two processes would deadlock: both read the default partition, then lock it.
            run(connection, "SELECT pg_advisory_xact_lock(:key)", key=PARTITIONS_LOCK)
            table = f"catlog.{partition.name}"
            if scalar(
                connection,
                f"""SELECT to_regclass(:table) IS NOT NULL
                        OR EXISTS (SELECT 1 FROM catlog.{DEFAULT_PARTITION}
                                   WHERE instance_id >= :first AND instance_id < :end)""",
                table=table,
                first=first,
                end=end,
            ):
                return True
            run(connection, f"CREATE TABLE {table} (LIKE catlog.{TABLE} INCLUDING ALL)")
            run(
                connection,
                f"""ALTER TABLE catlog.{TABLE} ATTACH PARTITION {table}
                    FOR VALUES FROM ('{first}') TO ('{end}')""",
            )
    except exc.DBAPIError as error:
        if is_outage(error):
            raise
        logger.info("no partition of results for %s yet: %s", partition.day, reason(error))
        return False
    return True


def first_id(instant: dt.datetime) -> UUID:
    """Return the first id of the instances that are made from *instant* on."""
    return UUID(int=max(0, round(instant.timestamp() * 1000)) << TIME_SHIFT)


def _start_of(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time.min, dt.UTC)
