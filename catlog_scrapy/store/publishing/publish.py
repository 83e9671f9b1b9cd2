"""A loaded catalog becomes the current picture: all of it, at once, in one transaction."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.batch_errors import FAULTS
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.publishing.cursors import move_cursors, read_cursor_range
from catlog_scrapy.store.publishing.publications import record_publication
from catlog_scrapy.store.queue.catalog_states import lock_catalog, stop_catalog, update_parent_state
from catlog_scrapy.store.queue.report import exceeds
from catlog_scrapy.store.queue.results import purge_unfinished_attempts
from catlog_scrapy.store.sql import row, rows, run

# The share of an operation's records that one load may remove, unless it says otherwise.
DEFAULT_MAX_REMOVED_SHARE = 0.5
# The changes that readers see.
VISIBLE = frozenset({"created", "changed", "removed", "restored"})
# Seconds to wait after a failed publish, for each failure so far, and at most.
PUBLISH_RETRY_S, MAX_PUBLISH_RETRY_S = 5.0, 600.0

# The first number of the advisory locks, so that they do not meet those of other programs.
PUBLISH_LOCK = 4_226_002


def publish_next(engine: Engine) -> UUID | None:
    """Publish one catalog that waits for it; its id, or None where none can be taken now.

    Of a provider it is the oldest: a newer one that overtakes it makes a late one of it, which
    leaves no history. A publish that fails leaves the catalog `publishing`, to be tried again later
    without a crawl.
    """
    with engine.connect() as connection:
        waiting = rows(
            connection,
            """SELECT DISTINCT ON (provider_id) id FROM catlog.catalog
               WHERE state = 'publishing' AND publish_at <= clock_timestamp()
               ORDER BY provider_id, as_of, created_at""",
        )
    return next((c["id"] for c in waiting if publish(engine, c["id"])), None)


class _CatalogStopped(Exception):
    """The catalog was cancelled while it was published. Raised and caught here."""


def publish(engine: Engine, catalog_id: UUID) -> bool:
    """Publish this catalog; False where it does not wait for that, or no longer.

    Or where another one publishes for its provider just now.
    """
    try:
        with engine.begin() as connection:
            if not _publish(connection, catalog_id):
                return False
    except _CatalogStopped:
        return False
    except PublishRefused as refused:
        with engine.begin() as connection:
            catalog = lock_catalog(connection, catalog_id)
            if catalog["state"] == "publishing":
                stop_catalog(connection, catalog, "failed", str(refused))
        return True
    except (exc.DBAPIError, *FAULTS) as error:
        _try_later(engine, catalog_id, reason(error))
        raise
    with engine.begin() as connection:
        purge_unfinished_attempts(connection, catalog_id)
    return True


def _try_later(engine: Engine, catalog_id: UUID, error: str) -> None:
    with engine.begin() as connection:
        run(
            connection,
            """UPDATE catlog.catalog SET publish_failures = publish_failures + 1,
                   error = :error, publish_at = clock_timestamp()
                       + make_interval(secs => least(:longest, :wait * (publish_failures + 1)))
               WHERE id = :id AND state = 'publishing'""",
            id=catalog_id,
            error=f"publishing failed, it will be tried again: {error}",
            wait=PUBLISH_RETRY_S,
            longest=MAX_PUBLISH_RETRY_S,
        )


def _publish(connection: Connection, catalog_id: UUID) -> bool:
    # Sorts and hash tables of a large publish belong in memory, and it may take its time. No
    # statistics know yet what has just arrived, so the planner would take it for a handful of rows
    # and sort it, twice; sets are best hashed, whatever their size.
    set_statement_timeout(connection)
    run(
        connection,
        """SET LOCAL work_mem = '256MB';
           SET LOCAL enable_sort = off; SET LOCAL enable_mergejoin = off""",
    )
    locked = row(
        connection,
        """SELECT pg_try_advisory_xact_lock(:key, hashtext(provider_id::text)) AS ours
           FROM catlog.catalog WHERE id = :id""",
        key=PUBLISH_LOCK,
        id=catalog_id,
    )
    if locked is None or not locked["ours"]:
        return False
    catalog = row(
        connection,
        "SELECT * FROM catlog.catalog WHERE id = :id AND state = 'publishing'",
        id=catalog_id,
    )
    if catalog is None:
        return False
    now = row(connection, "SELECT clock_timestamp() AS now")
    counts: dict[str, int] = {}
    altered: set[str] = set()
    for operation in _operations(connection, catalog_id):
        values = {
            "catalog": catalog_id,
            "operation": operation["id"],
            "provider": catalog["provider_id"],
            "as_of": catalog["as_of"],
            "now": now["now"] if now else None,
            "kinds": operation["kinds"],
            "removes": catalog["is_full"] and operation["mode"] == "snapshot",
            "refreshes": operation["refresh"] is not None,
            "altered": altered,
        }
        for name, count in _publish_operation(connection, operation, values).items():
            counts[name] = counts.get(name, 0) + count
    # Not before: its siblings' attempts need the parent's lock to end, and a large publish takes
    # minutes. Until here the advisory lock has kept other publishers out.
    if lock_catalog(connection, catalog_id)["state"] != "publishing":
        raise _CatalogStopped
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'loaded', finished_at = clock_timestamp(),
               published = CAST(:counts AS jsonb), error = NULL WHERE id = :id""",
        id=catalog_id,
        counts=orjson.dumps(counts).decode(),
    )
    if now and altered:
        record_publication(connection, catalog["provider_id"], altered, catalog_id, now["now"])
    update_parent_state(connection, catalog["parent_id"])
    return True


def _operations(connection: Connection, catalog_id: UUID) -> list[Mapping[str, Any]]:
    """The catalog's operations, each with the kinds of the records it answers for.

    Those are its own, and what other versions of it wrote unless another operation writes it too:
    a kind may move from one operation to another.
    """
    return rows(
        connection,
        """SELECT o.id, o.name, o.mode, o.tolerate, o.refresh, s.name AS scheme,
               ARRAY(SELECT k.name FROM catlog.kind k
                     JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
                     JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
                     WHERE v.provider_id = s.provider_id GROUP BY k.name
                     HAVING bool_or(w.id = o.id)
                         OR bool_and(v.name = s.name AND w.name = o.name)) AS kinds
           FROM catlog.catalog_scheme_operation o
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           WHERE o.id IN (SELECT operation_id FROM catlog.catalog_scheme_operation_instance
                          WHERE catalog_id = :id)
           ORDER BY o.name""",
        id=catalog_id,
    )


def _publish_operation(
    connection: Connection, operation: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, int]:
    """Publish what one operation brought; how many records were created, changed and so on."""
    scope = _scope(connection, operation, values)
    reading = None
    values["superseded"] = []
    if operation["mode"] == "incremental":
        reading = read_cursor_range(connection, values["catalog"], operation["id"], scope["id"])
    if reading:
        values |= {
            "as_of": reading.as_of,
            "superseded": reading.superseded,
            # Read from the beginning, it is a snapshot like any other.
            "removes": reading.is_full and not reading.superseded,
        }
    counts = _count_arrived(connection, operation, values)
    if scope["high_water_mark"] is not None and values["as_of"] < scope["high_water_mark"]:
        # A newer whole snapshot has spoken for all of these records, the absent ones included.
        return {**counts, "stale": counts["received"]}
    is_newest = reading is not None and not _is_passed_over(connection, values)
    changes = rows(
        connection,
        PUBLISH.format(arrived=DISTINCT if counts["duplicates"] else ARRIVED),
        scope=scope["id"],
        **values,
    )
    if any(change["unknown"] for change in changes):
        raise PublishRefused(
            f"{operation['name']} yields Unchanged for a key that is no record: it was never"
            " loaded; run a full load once."
        )
    for change in changes:
        counts[change["change"]] = counts.get(change["change"], 0) + change["records"]
        if change["change"] in VISIBLE:
            values["altered"].add(change["kind"])
    if counts.get("removed"):
        _refuse_too_many_removed(connection, operation, values, counts)
    if values["removes"]:
        run(
            connection,
            "UPDATE catlog.scope SET high_water_mark = :as_of WHERE id = :scope",
            as_of=values["as_of"],
            scope=scope["id"],
        )
    if reading and is_newest:
        move_cursors(connection, values["catalog"], operation["id"], scope["id"], reading)
    return counts


def _is_passed_over(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Whether a newer, narrowed load has said something else of what this one brings.

    Which of the two has read it later, nobody knows; so it is read once more.
    """
    found = row(
        connection,
        f"""SELECT EXISTS (
                SELECT 1 FROM ({ARRIVED}) AS a JOIN catlog.record k
                    ON k.provider_id = :provider AND k.kind = a.kind AND k.key = a.key
                WHERE k.as_of > :as_of AND a.data IS NOT NULL
                  AND (a.data <> k.data OR k.removed_at IS NOT NULL)) AS passed_over""",
        **values,
    )
    return bool(found and found["passed_over"])


def _count_arrived(
    connection: Connection, operation: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, int]:
    found = row(connection, COUNT_ARRIVED, **values)
    accepted = row(connection, COUNT_ACCEPTED, **values)
    if found is None or accepted is None or found["received"] != accepted["accepted"]:
        raise PublishRefused(
            f"{operation['name']} does not have all rows any more that its attempts had when they"
            " were done. Make a new catalog with scrapy load."
        )
    return dict(found)


def _scope(
    connection: Connection, operation: Mapping[str, Any], values: dict[str, Any]
) -> Mapping[str, Any]:
    """The operation's scope, with the newest mark of any scope that wrote its kinds.

    An operation that was renamed hands its records on: what the former one said still counts.
    """
    names = {
        "provider": values["provider"],
        "scheme": operation["scheme"],
        "operation": operation["name"],
    }
    run(
        connection,
        """INSERT INTO catlog.scope (provider_id, scheme_name, operation_name)
           VALUES (:provider, :scheme, :operation) ON CONFLICT DO NOTHING""",
        **names,
    )
    found = row(
        connection,
        """SELECT own.id, (
               SELECT max(s.high_water_mark) FROM catlog.scope s
               WHERE s.provider_id = :provider AND EXISTS (
                   SELECT 1 FROM catlog.kind k
                   JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
                   JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
                   WHERE v.provider_id = s.provider_id AND v.name = s.scheme_name
                     AND w.name = s.operation_name AND k.name = ANY(:kinds))) AS high_water_mark
           FROM catlog.scope own
           WHERE own.provider_id = :provider AND own.scheme_name = :scheme
             AND own.operation_name = :operation""",
        kinds=values["kinds"],
        **names,
    )
    if found is None:
        raise PublishRefused(f"{operation['name']} has no scope.")
    return found


def _refuse_too_many_removed(
    connection: Connection,
    operation: Mapping[str, Any],
    values: dict[str, Any],
    counts: dict[str, int],
) -> None:
    left = row(
        connection,
        """SELECT count(*) AS records FROM catlog.record
           WHERE provider_id = :provider AND kind = ANY(:kinds) AND removed_at IS NULL""",
        **values,
    )
    removed = counts["removed"]
    before = (left["records"] if left else 0) + removed
    before -= counts.get("created", 0) + counts.get("restored", 0)
    # What its source itself says is gone, is gone, unless the operation limits it.
    implied = DEFAULT_MAX_REMOVED_SHARE if values["removes"] else 1.0
    tolerated = operation["tolerate"].get("removed", implied)
    if exceeds(removed, before, tolerated):
        raise PublishRefused(
            f"{operation['name']} would remove {removed} of {before} records, tolerated"
            f" {tolerated}. If they are gone, raise tolerate.removed, run scrapy apply and"
            " scrapy retry."
        )


# What the done attempts brought. A row beyond those that were accepted came after the end, from a
# doubled worker: it is numbered from 0, so it has no number below.
ARRIVED = """
    SELECT r.kind, r.key, r.data FROM catlog.catalog_operation_instance_result r
    JOIN catlog.catalog_scheme_operation_instance i
        ON i.id = r.instance_id AND i.attempt = r.attempt
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
      AND r.seq < a.accepted AND NOT i.part = ANY(CAST(:superseded AS text[]))"""

# A key twice in one catalog: the last by part and number wins; data wins over `Unchanged`.
DISTINCT = (
    ARRIVED.replace("SELECT", "SELECT DISTINCT ON (r.kind, r.key)", 1)
    + """
    ORDER BY r.kind, r.key, r.data IS NULL, i.part DESC, r.seq DESC"""
)

COUNT_ARRIVED = f"""
    SELECT coalesce(sum(times), 0)::bigint AS received,
        coalesce(sum(times - 1), 0)::bigint AS duplicates
    FROM (SELECT count(*) AS times FROM ({ARRIVED}) AS arrived GROUP BY kind, key) AS keys"""

COUNT_ACCEPTED = """
    SELECT coalesce(sum(a.accepted), 0)::bigint AS accepted
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
      AND NOT i.part = ANY(CAST(:superseded AS text[]))"""

# One pass over what arrived and what is known says what changes; the rest follows from it. A record
# that a newer load has spoken for (its as_of) is left alone. Data that are JSON's null say that the
# record is gone; of one that nobody knows, this too is noted: an older load may still bring it. A
# load that is not a whole snapshot has no mark to speak by, so it notes its time on every key that
# it saw. New records are written in
# the order of their keys: their index then grows at its end.
PUBLISH = """
    WITH arrived AS ({arrived}),
    known AS (
        SELECT * FROM catlog.record WHERE provider_id = :provider AND kind = ANY(:kinds)),
    verdict AS MATERIALIZED (
        SELECT coalesce(a.kind, k.kind) AS kind, coalesce(a.key, k.key) AS key,
            coalesce(nullif(a.data, 'null'), k.data) AS data, k.data AS former,
            k.updated_at AS since, nullif(a.data, 'null') IS NOT NULL AS was_read,
            CASE WHEN k.key IS NULL AND a.data = 'null' THEN 'deleted'
                 WHEN k.key IS NULL THEN 'created'
                 WHEN a.key IS NULL THEN 'removed'
                 WHEN a.data = 'null' AND k.removed_at IS NULL THEN 'removed'
                 WHEN a.data = 'null' THEN 'touched'
                 WHEN k.removed_at IS NOT NULL THEN 'restored'
                 WHEN a.data <> k.data THEN 'changed'
                 ELSE 'touched' END AS change
        FROM arrived a FULL JOIN known k ON k.kind = a.kind AND k.key = a.key
        WHERE CASE
            WHEN k.key IS NULL THEN NOT :removes OR a.data IS DISTINCT FROM 'null'
            WHEN k.as_of > :as_of THEN false
            WHEN a.key IS NULL THEN :removes AND k.removed_at IS NULL
            WHEN :refreshes AND a.data IS NOT NULL THEN true
            WHEN a.data = 'null' AND k.removed_at IS NOT NULL
                THEN NOT :removes AND k.as_of < :as_of
            ELSE k.removed_at IS NOT NULL OR a.data <> k.data
                OR (NOT :removes AND k.as_of < :as_of) END),
    kept AS (
        INSERT INTO catlog.record_version
            (provider_id, kind, key, valid_from, valid_to, data, change, catalog_id)
        SELECT :provider, kind, key, since, :now, former, change, :catalog
        FROM verdict WHERE change IN ('changed', 'removed')),
    altered AS (
        UPDATE catlog.record r SET data = v.data, as_of = :as_of, scope_id = :scope,
            updated_at = CASE v.change WHEN 'touched' THEN r.updated_at ELSE :now END,
            removed_at = CASE v.change WHEN 'removed' THEN CAST(:now AS timestamptz)
                WHEN 'touched' THEN r.removed_at END,
            catalog_id = CASE v.change WHEN 'touched' THEN r.catalog_id ELSE :catalog END,
            read_at = CASE WHEN :refreshes AND v.was_read THEN :as_of ELSE r.read_at END
        FROM verdict v
        WHERE r.provider_id = :provider AND r.kind = v.kind AND r.key = v.key
          AND v.change NOT IN ('created', 'deleted')),
    made AS (
        INSERT INTO catlog.record (provider_id, kind, key, scope_id, data, as_of, created_at,
            updated_at, removed_at, read_at, catalog_id)
        SELECT :provider, kind, key, :scope, coalesce(data, '{{}}'), :as_of, :now, :now,
            CASE change WHEN 'deleted' THEN CAST(:now AS timestamptz) END,
            CASE WHEN :refreshes THEN CAST(:as_of AS timestamptz) END, :catalog
        FROM verdict
        WHERE change = 'deleted' OR change = 'created' AND data IS NOT NULL ORDER BY kind, key)
    SELECT kind, change, count(*) AS records,
        bool_or(data IS NULL AND change <> 'deleted') AS unknown
    FROM verdict GROUP BY kind, change"""
