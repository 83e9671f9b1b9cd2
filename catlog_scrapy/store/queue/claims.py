"""Who may run what, and for how long: claim, heartbeat, watch, reap."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from catlog_scrapy.db.migrations import head
from catlog_scrapy.exceptions import NotFound, SchemaMismatch
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claim_hints import EVER, KNOWN, claim_hints_of
from catlog_scrapy.store.sql import Database, row, rows

known_revision = cache(head)


@dataclass(frozen=True)
class Claim:
    """An attempt that this worker holds, with all that running it needs.

    `kinds` are its record types: name, key and fields, and whether they are `foreign`, declared for
    a spider that has none. `seconds` is how long it may run. `project` is the Scrapy project that
    has the spider, None where nobody said; `project_version` the only version of it that may run
    this. `settings` are Scrapy's for this attempt alone. `secrets` are the names of the provider's.
    `age` is how many seconds ago it was claimed.
    """

    attempt: AttemptName
    catalog: UUID
    operation_id: UUID
    project: str | None
    project_version: str | None
    settings: dict[str, str]
    provider: str
    scheme: str
    operation: str
    part: str
    spider: str
    mode: str
    isolate: bool
    arguments: dict[str, str]
    base_url: str | None
    limits: dict[str, Any]
    kinds: list[dict[str, Any]]
    seconds: float
    secrets: list[str]
    age: float = field(default=0.0, compare=False)

    @property
    def refusal_id(self) -> UUID:
        """Whose instances nobody can run who cannot run this: the operation, or this catalog."""
        return self.operation_id if self.project_version is None else self.catalog

    @property
    def title(self) -> str:
        """What people call it: `provider/scheme/operation part`."""
        return f"{self.provider}/{self.scheme}/{self.operation} {self.part}".rstrip()


CLAIM_COLUMNS = """
    i.id AS instance, i.attempt, i.catalog_id, i.operation_id, i.part, i.arguments,
    c.settings, c.project_version,
    p.name AS provider, p.project, p.base_url, p.secrets, s.name AS scheme,
    o.name AS operation, o.spider, o.mode, o.isolate, o.timeout AS seconds,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'key', k.key,
         'fields', k.fields, 'foreign', k.foreign_type) ORDER BY k.name), '[]')
     FROM catlog.kind k
     WHERE k.operation_id = o.id) AS kinds"""
CLAIM_TABLES = """
    JOIN catlog.catalog c ON c.id = i.catalog_id
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
    JOIN catlog.provider p ON p.id = i.provider_id"""


def claim(
    engine: Database,
    node: str,
    *,
    limit: int = 1,
    lease: float = 60.0,
    catalogs: Sequence[UUID] | None = None,
    executor: str = "scrapy",
    logs: str | None = None,
    refused: Collection[UUID] = (),
) -> list[Claim]:
    """Up to *limit* instances of one provider, by priority, then age; [] where none is free now.

    *lease* is in seconds. *catalogs* narrows it to these. *logs* is the folder where this worker
    writes an attempt's log, as `<attempt>.log`. *refused* are operations and catalogs that this
    worker cannot run: they are left for another. Raises SchemaMismatch when the database has moved
    to another revision: this worker must not go on.
    """
    values = {
        "catalogs": [str(catalog) for catalog in catalogs] if catalogs is not None else None,
        "executor": executor,
        "refused": [str(id_) for id_ in refused],
    }
    hints = claim_hints_of(engine)
    with engine.begin() as connection:
        version = row(connection, "SELECT version_num FROM catlog.alembic_version")
        if version is None or version["version_num"] != known_revision():
            raise SchemaMismatch(
                "the database has moved to another revision; restart with its catlog."
            )
        hints.refresh(connection)
        started = time.monotonic()
        # Of equal priority the provider with the fewest running is first, not the one waiting
        # longest: a backlog of one must not starve the others.
        provider = row(
            connection,
            f"""SELECT p.id, p.max_running FROM catlog.provider p
               LEFT JOIN {KNOWN} ON known.id = p.id
               CROSS JOIN LATERAL (
                   SELECT i.priority
                   FROM catlog.catalog_scheme_operation_instance i
                   JOIN catlog.catalog_scheme_operation o
                       ON o.id = i.operation_id AND o.executor = :executor
                   WHERE i.provider_id = p.id AND i.state = 'new' AND i.available_at <= now()
                     AND i.position >= coalesce(known.head, 0)
                     AND (CAST(:catalogs AS uuid[]) IS NULL
                          OR i.catalog_id = ANY(CAST(:catalogs AS uuid[])))
                     AND o.id <> ALL(CAST(:refused AS uuid[]))
                     AND i.catalog_id <> ALL(CAST(:refused AS uuid[]))
                   ORDER BY i.priority DESC, i.position LIMIT 1) AS first
               CROSS JOIN LATERAL (
                   SELECT count(*) AS running FROM catlog.catalog_scheme_operation_instance r
                   WHERE r.provider_id = p.id AND r.node IS NOT NULL
                     AND r.available_at >= coalesce(known.held, :ever)) AS now
               WHERE p.max_running IS NULL OR p.max_running > now.running
               ORDER BY first.priority DESC, now.running, random() LIMIT 1
               FOR NO KEY UPDATE OF p SKIP LOCKED""",
            ever=EVER,
            **hints.known(),
            **values,
        )
        hints.took(time.monotonic() - started)
        if provider is None:
            return []
        # A new statement sees what ran when the provider's row became ours; the one that locked
        # it does not, and would let more run than max_running.
        running = hints.running(connection, provider["id"])
        most = provider["max_running"]
        candidates = rows(
            connection,
            """SELECT i.id, c.id AS catalog_id, c.as_of IS NULL AS first
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o
                   ON o.id = i.operation_id AND o.executor = :executor
               JOIN catlog.catalog c ON c.id = i.catalog_id
               WHERE i.provider_id = :provider AND i.state = 'new' AND i.available_at <= now()
                 AND i.position >= :head
                 AND (CAST(:catalogs AS uuid[]) IS NULL
                      OR i.catalog_id = ANY(CAST(:catalogs AS uuid[])))
                 AND o.id <> ALL(CAST(:refused AS uuid[]))
                 AND i.catalog_id <> ALL(CAST(:refused AS uuid[]))
               ORDER BY i.priority DESC, i.position LIMIT :limit""",
            provider=provider["id"],
            head=hints.head(provider["id"]),
            limit=limit if most is None else max(0, min(limit, most - running)),
            **values,
        )
        if not candidates:
            return []
        first = sorted({c["catalog_id"] for c in candidates if c["first"]})
        if first:
            rows(
                connection,
                """UPDATE catlog.catalog c SET as_of = clock_timestamp()
                   FROM (SELECT id FROM catlog.catalog
                         WHERE id = ANY(CAST(:ids AS uuid[])) AND as_of IS NULL
                         ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS first
                   WHERE c.id = first.id RETURNING c.id""",
                ids=[str(catalog) for catalog in first],
            )
        # The state is looked at behind the lock, so that nobody thinks of searching by it.
        taken = rows(
            connection,
            f"""WITH free AS (
                    SELECT i.id, i.state FROM catlog.catalog_scheme_operation_instance i
                    JOIN catlog.catalog c ON c.id = i.catalog_id
                    WHERE i.id = ANY(CAST(:ids AS uuid[]))
                      AND c.state = 'loading' AND c.as_of IS NOT NULL
                    ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED),
                i AS (
                    UPDATE catlog.catalog_scheme_operation_instance i
                    SET state = 'running', attempt = attempt + 1, node = :node,
                        available_at = clock_timestamp(),
                        lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
                    FROM free WHERE i.id = free.id AND free.state = 'new' RETURNING i.*),
                claimed AS (SELECT {CLAIM_COLUMNS}, i.priority, i.position FROM i {CLAIM_TABLES}),
                begun AS (
                    INSERT INTO catlog.instance_attempt
                        (instance_id, attempt, node, log, deadline_at, limits)
                    SELECT i.id, i.attempt, :node,
                        CAST(:logs AS text) || '/' || i.id || '.' || i.attempt || '.log',
                        clock_timestamp() + make_interval(secs => o.timeout),
                        jsonb_build_object('tolerate', o.tolerate, 'min_results', o.min_results,
                            'timeout', o.timeout, 'start_timeout', o.start_timeout,
                            'stall_timeout', o.stall_timeout,
                            'backoff_base', o.backoff_base, 'backoff_cap', o.backoff_cap,
                            'max_errors', s.max_errors, 'overlap', o.overlap,
                            'refresh', o.refresh)
                    FROM i {CLAIM_TABLES}
                    RETURNING instance_id, limits)
                SELECT claimed.*, begun.limits FROM claimed
                JOIN begun ON begun.instance_id = claimed.instance
                ORDER BY claimed.priority DESC, claimed.position""",
            ids=[str(candidate["id"]) for candidate in candidates],
            node=node,
            logs=logs,
            lease=lease,
        )
        return [_claim(found) for found in taken]


def begin(engine: Engine, name: AttemptName, pid: int) -> Claim:
    """Take up a claimed attempt in the process *pid*, and only there; its claim. Raises NotFound.

    An attempt that a process has taken up is not there for another one: it starts from nothing.
    """
    with engine.begin() as connection:
        found = row(
            connection,
            f"""WITH a AS (
                    UPDATE catlog.instance_attempt SET begun_at = clock_timestamp(), pid = :pid
                    WHERE instance_id = :instance AND attempt = :number AND outcome IS NULL
                      AND begun_at IS NULL RETURNING *)
                SELECT {CLAIM_COLUMNS}, a.limits,
                    extract(epoch FROM clock_timestamp() - a.started_at)::float AS age
                FROM a
                JOIN catlog.catalog_scheme_operation_instance i
                    ON i.id = a.instance_id AND i.attempt = a.attempt AND i.state = 'running'
                {CLAIM_TABLES}""",
            instance=name.instance,
            number=name.number,
            pid=pid,
        )
    if found is None:
        raise NotFound(f"attempt {name} is not running; it was lost, or it never was.")
    return _claim(found)


def _claim(found: Any) -> Claim:
    return Claim(
        attempt=AttemptName(found["instance"], found["attempt"]),
        catalog=found["catalog_id"],
        operation_id=found["operation_id"],
        project=found["project"],
        project_version=found["project_version"],
        settings=found["settings"],
        provider=found["provider"],
        scheme=found["scheme"],
        operation=found["operation"],
        part=found["part"],
        spider=found["spider"],
        mode=found["mode"],
        isolate=found["isolate"],
        arguments=found["arguments"],
        base_url=found["base_url"],
        limits=found["limits"],
        kinds=found["kinds"],
        seconds=found["seconds"],
        secrets=found["secrets"],
        age=found.get("age", 0.0),
    )
