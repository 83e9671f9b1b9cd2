"""Status queries: open work, catalogs, attempts, rejected items, operations."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.store.sql import Database, Readable, row, rows, scalar

if TYPE_CHECKING:  # scrapy status does without SQLAlchemy; see db/driver.py
    from sqlalchemy import Connection, Engine

    from catlog_scrapy.db.driver import DriverConnection
    from catlog_scrapy.store.queue.attempts import AttemptName


def attempt_error(engine: Engine, name: AttemptName) -> str | None:
    """Return the stored error of an attempt."""
    with engine.connect() as connection:
        found = row(
            connection,
            """SELECT error FROM catlog.instance_attempt
               WHERE instance_id = :instance AND attempt = :number""",
            instance=name.instance,
            number=name.number,
        )
    return found["error"] if found else None


def attempt_outcome(engine: Engine, name: AttemptName) -> tuple[int, str | None]:
    """Return an attempt's number of accepted results and its outcome, None until its end."""
    with engine.connect() as connection:
        found = row(
            connection,
            """SELECT accepted, outcome FROM catlog.instance_attempt
               WHERE instance_id = :instance AND attempt = :number""",
            instance=name.instance,
            number=name.number,
        )
    return (found["accepted"], found["outcome"]) if found else (0, None)


# The conditions `state = 'new'` and `node IS NOT NULL` have an index each, which holds no ended
# instances.
OPEN_INSTANCE = """
    SELECT 1 FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    WHERE o.executor = 'scrapy' AND o.tags <@ to_jsonb(CAST(:tags AS text[]))
      AND o.id <> ALL(CAST(:refused AS uuid[]))
      AND i.catalog_id <> ALL(CAST(:refused AS uuid[]))"""


def has_open_work(
    engine: Engine, refused: Collection[UUID] = (), tags: Collection[str] = ()
) -> bool:
    """Return whether work is open for a worker with *tags*.

    The worker cannot run *refused* operations or catalogs.
    """
    with engine.connect() as connection:
        return bool(
            scalar(
                connection,
                f"""SELECT EXISTS (SELECT 1 FROM catlog.catalog
                               WHERE state IN ('waiting', 'publishing'))
                    OR EXISTS ({OPEN_INSTANCE} AND i.state = 'new')
                    OR EXISTS ({OPEN_INSTANCE} AND i.state = 'running' AND i.node IS NOT NULL)
                    AS work""",
                refused=[str(id_) for id_ in refused],
                tags=list(tags),
            )
        )


def catalog_tree(engine: Readable, catalog_id: UUID) -> list[UUID]:
    """Return the ids of a catalog and of all its sub-catalogs."""
    with engine.connect() as connection:
        found = rows(
            connection,
            """WITH RECURSIVE down AS (
                   SELECT id FROM catlog.catalog WHERE id = :id
                   UNION ALL
                   SELECT c.id FROM catlog.catalog c JOIN down ON c.parent_id = down.id)
               SELECT id FROM down""",
            id=catalog_id,
        )
    return [catalog["id"] for catalog in found]


HEX_DIGITS = re.compile("[0-9a-f]{1,32}")

CATALOGS = """
    SELECT c.id, p.name || '/' || s.name AS scheme, s.version, c.state, c.origin, c.operation,
        c.due_at, c.as_of, c.created_at, c.started_at, c.finished_at, c.errors, c.first_error,
        c.error, c.published, c.arguments, c.parent_id, c.job,
        CAST(extract(epoch FROM coalesce(c.finished_at, clock_timestamp()) - c.started_at) AS float)
            AS seconds,
        CASE WHEN c.state IN ('waiting', 'loading', 'publishing')
            THEN catlog.catalog_wait_reason(c.id) END AS waits,
        (SELECT count(*) FROM catlog.catalog_scheme_operation_instance i
         WHERE i.catalog_id = c.id) AS instances,
        (SELECT count(*) FROM catlog.catalog_scheme_operation_instance i
         WHERE i.catalog_id = c.id AND i.state = 'done') AS done
    FROM catlog.catalog c
    JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
    JOIN catlog.provider p ON p.id = c.provider_id"""


def latest_catalogs(
    engine: Readable,
    *,
    failed: bool = False,
    provider: str | None = None,
    scheme: str | None = None,
    limit: int = 30,
) -> list[Mapping[str, Any]]:
    """Return the latest catalogs, newest first; *failed* selects failed catalogs.

    *provider* and *scheme* are names. Raises NotFound for a provider, or a scheme of it, that is
    unknown.
    """
    conditions = ["true"]
    conditions += ["c.state = 'failed'"] if failed else []
    conditions += ["p.name = :provider"] if provider else []
    conditions += ["s.name = :scheme"] if scheme else []
    with engine.connect() as connection:
        found = rows(
            connection,
            f"""{CATALOGS} WHERE {" AND ".join(conditions)}
                ORDER BY c.created_at DESC LIMIT :limit""",
            provider=provider,
            scheme=scheme,
            limit=limit,
        )
        if provider and not found:
            _require_scheme(connection, provider, scheme)
        return found


def _require_scheme(
    connection: Connection | DriverConnection, provider: str, scheme: str | None
) -> None:
    """Raise NotFound unless there is a provider, and a version of a scheme, of these names."""
    known = rows(
        connection,
        """SELECT p.name AS provider, s.name AS scheme FROM catlog.provider p
           LEFT JOIN catlog.catalog_scheme s ON s.provider_id = p.id ORDER BY 1, 2""",
    )
    providers = list(dict.fromkeys(found["provider"] for found in known))
    if provider not in providers:
        raise NotFound(
            f"no provider {provider!r}; there are: {', '.join(providers) or 'none'}. A new one"
            " needs scrapy apply."
        )
    schemes = list(dict.fromkeys(f["scheme"] for f in known if f["provider"] == provider))
    if scheme and scheme not in schemes:
        names = ", ".join(name for name in schemes if name) or "none"
        raise NotFound(f"{provider} has no scheme {scheme!r}; it has {names}.")


def find_catalog(engine: Readable, prefix: str) -> Mapping[str, Any]:
    """Return the catalog whose id begins with *prefix*, or whose job is *prefix*.

    Raises NotFound for an unknown or ambiguous prefix.
    """
    digits = prefix.lower().replace("-", "")
    ids = None
    if HEX_DIGITS.fullmatch(digits):
        ids = [digits.ljust(32, "0"), digits.ljust(32, "f")]
    with engine.connect() as connection:
        found = rows(
            connection,
            f"""{CATALOGS} WHERE c.id BETWEEN CAST(:first AS uuid) AND CAST(:last AS uuid)
                    OR c.job = :job LIMIT 2""",
            first=ids[0] if ids else None,
            last=ids[1] if ids else None,
            job=prefix,
        )
    if len(found) != 1 or len(prefix) < 4:
        what = "several catalogs" if len(found) > 1 else "no catalog"
        raise NotFound(f"{what} with the id {prefix!r}; scrapy status lists them.")
    return found[0]


ATTEMPTS = """
    SELECT i.id AS instance, o.name AS operation, i.part, i.state, i.arguments,
        i.available_at, a.attempt, a.node, a.pid, a.started_at, a.finished_at,
        a.outcome, a.error, a.log, a.accepted, a.rejected, a.dropped,
        a.read_from, a.read_to, n.url AS node_url,
        CAST(extract(epoch FROM coalesce(a.finished_at, clock_timestamp()) - a.started_at) AS float)
            AS seconds,
        CASE WHEN i.state = 'new' AND coalesce(a.attempt, 0) = i.attempt
            THEN catlog.wait_reason(i.id) END AS waits
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    LEFT JOIN catlog.instance_attempt a ON a.instance_id = i.id
    LEFT JOIN catlog.node n ON n.name = a.node"""


def attempts_of(
    engine: Readable, catalog_id: UUID, *, failed: bool = False
) -> list[Mapping[str, Any]]:
    """Return the instances of a catalog with their attempts, by operation, part and number."""
    with engine.connect() as connection:
        return rows(
            connection,
            f"""{ATTEMPTS} WHERE i.catalog_id = :id
                    AND (NOT :failed OR a.outcome NOT IN ('done', 'released'))
                ORDER BY o.name, i.part, a.attempt""",
            id=catalog_id,
            failed=failed,
        )


def find_attempt(engine: Readable, name: str) -> Mapping[str, Any]:
    """Return the attempt `INSTANCE.NUMBER` with its instance. Raises NotFound."""
    from catlog_scrapy.store.queue.attempts import AttemptName

    attempt = AttemptName.parse(name)
    with engine.connect() as connection:
        found = rows(
            connection,
            f"{ATTEMPTS} WHERE i.id = CAST(:instance AS uuid) AND a.attempt = :number",
            instance=str(attempt.instance),
            number=attempt.number,
        )
    if not found:
        raise NotFound(f"no attempt {name}; scrapy status CATALOG shows them.")
    return found[0]


def rejected_of(engine: Readable, catalog_id: UUID, *, limit: int = 10) -> list[Mapping[str, Any]]:
    """Return the first rejected items of a catalog, with their errors and URL."""
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT o.name AS operation, i.part, r.attempt, r.url, r.errors, left(r.data, 200)
                   AS data
               FROM catlog.rejected_result r
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               WHERE i.catalog_id = :id ORDER BY r.created_at LIMIT :limit""",
            id=catalog_id,
            limit=limit,
        )


def operations_of_spider(engine: Engine, spider: str) -> list[Mapping[str, Any]]:
    """Return provider, scheme and name of the current operations that run *spider*."""
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT p.name AS provider, s.name AS scheme, o.name FROM
                   catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id
               WHERE o.spider = :spider AND s.retired_at IS NULL AND o.executor = 'scrapy'
               ORDER BY 1, 2, 3""",
            spider=spider,
        )


def scheme_operations(database: Database, provider: str, scheme: str) -> list[Mapping[str, Any]]:
    """Return the operations of a scheme's current version, with their provider's base URL."""
    with database.connect() as connection:
        return rows(
            connection,
            """SELECT o.name, o.spider, o.executor, o.for_each, o.hosts, p.base_url,
                   (SELECT k.fields FROM catlog.kind k
                    WHERE k.name = o.for_each #>> '{}' ORDER BY k.created_at DESC LIMIT 1)
                   AS fields
               FROM catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id
               WHERE p.name = :provider AND s.name = :scheme AND s.retired_at IS NULL
               ORDER BY o.name""",
            provider=provider,
            scheme=scheme,
        )


def operation_place(database: Database, operation_id: UUID) -> Mapping[str, Any]:
    """Return an operation's provider, scheme, name and `retired_at`. Raises NotFound.

    `is_alone` says that the scheme has no other operation.
    """
    with database.connect() as connection:
        found = row(
            connection,
            """SELECT p.name AS provider, s.name AS scheme, o.name, s.retired_at,
                   (SELECT count(*) FROM catlog.catalog_scheme_operation
                    WHERE scheme_id = s.id) = 1 AS is_alone
               FROM catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id WHERE o.id = :id""",
            id=operation_id,
        )
    if found is None:
        raise NotFound(f"no operation {operation_id}.")
    return found


def catalog_state(database: Database, catalog_id: UUID) -> str:
    """Return the state of a catalog. Raises NotFound."""
    with database.connect() as connection:
        found = row(connection, "SELECT state FROM catlog.catalog WHERE id = :id", id=catalog_id)
    if found is None:
        raise NotFound(f"no catalog {catalog_id}.")
    return str(found["state"])
