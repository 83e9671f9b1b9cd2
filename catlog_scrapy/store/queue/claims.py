"""Claims of instances by workers."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.db.migrations import head
from catlog_scrapy.exceptions import NotFound, SchemaMismatch
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claim_hints import HINTS_TABLE, LONG_AGO, ClaimHints, claim_hints_of
from catlog_scrapy.store.sql import Database, load_sql, row, rows, run, scalar

# An instance `i` of an operation `o` that a claim may take.
ELIGIBLE = """
    i.state = 'new' AND i.available_at <= now() AND o.executor = :executor
    AND (CAST(:catalogs AS uuid[]) IS NULL OR i.catalog_id = ANY(CAST(:catalogs AS uuid[])))
    AND o.id <> ALL(CAST(:refused AS uuid[])) AND i.catalog_id <> ALL(CAST(:refused AS uuid[]))"""
TAKE_INSTANCES = load_sql(__name__, "take_instances")
READ_CLAIMS = load_sql(__name__, "read_claims")


@dataclass(frozen=True)
class Claim:
    """A running attempt with everything that its worker needs.

    `kinds` are its record types: name, key, fields, and `foreign` for a type that is declared for
    a spider that has none. `seconds` is the time limit. `project` is the Scrapy project that has
    the spider, None if unknown; `project_version` is the only version that may run the attempt.
    `settings` are Scrapy settings for this attempt alone. `secrets` are the names of the
    provider's secrets. `age` is the time since the claim in seconds.
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
        """The id to stop claiming when this claim is refused: an operation or a catalog.

        A refused project version concerns the catalog that asks for it, not the whole operation.
        """
        return self.operation_id if self.project_version is None else self.catalog

    @property
    def title(self) -> str:
        """The name for people: `provider/scheme/operation part`."""
        return f"{self.provider}/{self.scheme}/{self.operation} {self.part}".rstrip()


class LockedProvider(NamedTuple):
    """A provider whose row is locked for a claim."""

    id: UUID
    max_running: int | None


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
    """Claim up to *limit* instances of one provider, by priority, then age.

    *lease* is in seconds. Only instances of *catalogs* are claimed, unless it is None, and none of
    the operations and catalogs in *refused*. The log of an attempt is `<attempt>.log` in the folder
    *logs*. Raises SchemaMismatch if the database has moved to another revision: the worker must
    stop.
    """
    eligible = {
        "catalogs": [str(catalog) for catalog in catalogs] if catalogs is not None else None,
        "executor": executor,
        "refused": [str(id_) for id_ in refused],
    }
    hints = claim_hints_of(engine)
    with engine.begin() as connection:
        # A subquery, because a downgrade to nothing leaves no row.
        revision = scalar(connection, "SELECT (SELECT version_num FROM catlog.alembic_version)")
        if revision != head():
            raise SchemaMismatch(
                "the database has moved to another revision; restart with its catlog."
            )
        provider = _lock_provider(connection, hints, eligible)
        if provider is None:
            return []
        # Only a new statement sees everything that ran when the provider's row was locked. The
        # locking statement does not: it would let more run than max_running.
        running = hints.running(connection, provider.id)
        if provider.max_running is not None:
            limit = max(0, min(limit, provider.max_running - running))
        ids = _select_instances(connection, hints, eligible, provider.id, limit)
        if not ids:
            return []
        taken = rows(connection, TAKE_INSTANCES, ids=ids, node=node, logs=logs, lease=lease)
        return _read_claims(connection, [AttemptName(**name) for name in taken])


def _lock_provider(
    connection: Connection, hints: ClaimHints, eligible: Mapping[str, Any]
) -> LockedProvider | None:
    """Lock the provider that is next to run, among those with an eligible instance.

    The highest priority comes first. Of equal priorities, the provider with the fewest running
    instances comes first, not the one that waits longest: its backlog would starve the others.
    """
    hints.refresh(connection)
    started = time.monotonic()
    found = row(
        connection,
        f"""SELECT p.id, p.max_running FROM catlog.provider p
            LEFT JOIN {HINTS_TABLE} ON known.id = p.id
            CROSS JOIN LATERAL (
                SELECT i.priority FROM catlog.catalog_scheme_operation_instance i
                JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
                WHERE i.provider_id = p.id AND i.position >= coalesce(known.head, 0) AND {ELIGIBLE}
                ORDER BY i.priority DESC, i.position LIMIT 1) AS first
            CROSS JOIN LATERAL (
                SELECT count(*) AS running FROM catlog.catalog_scheme_operation_instance r
                WHERE r.provider_id = p.id AND r.node IS NOT NULL
                  AND r.available_at >= coalesce(known.running_since, :long_ago)) AS now
            WHERE p.max_running IS NULL OR p.max_running > now.running
            ORDER BY first.priority DESC, now.running, random() LIMIT 1
            FOR NO KEY UPDATE OF p SKIP LOCKED""",
        long_ago=LONG_AGO,
        **hints.known(),
        **eligible,
    )
    hints.took(time.monotonic() - started)
    return LockedProvider(**found) if found else None


def _select_instances(
    connection: Connection,
    hints: ClaimHints,
    eligible: Mapping[str, Any],
    provider_id: UUID,
    limit: int,
) -> list[str]:
    """Return the ids of the provider's next eligible instances.

    Catalogs that are claimed for the first time get their `as_of` now.
    """
    found = rows(
        connection,
        f"""SELECT i.id, c.id AS catalog_id, c.as_of IS NULL AS is_first
            FROM catlog.catalog_scheme_operation_instance i
            JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
            JOIN catlog.catalog c ON c.id = i.catalog_id
            WHERE i.provider_id = :provider AND i.position >= :head AND {ELIGIBLE}
            ORDER BY i.priority DESC, i.position LIMIT :limit""",
        provider=provider_id,
        head=hints.head(provider_id),
        limit=limit,
        **eligible,
    )
    first = {str(instance["catalog_id"]) for instance in found if instance["is_first"]}
    if first:
        run(
            connection,
            """UPDATE catlog.catalog c SET as_of = clock_timestamp()
               FROM (SELECT id FROM catlog.catalog
                     WHERE id = ANY(CAST(:ids AS uuid[])) AND as_of IS NULL
                     ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS first
               WHERE c.id = first.id""",
            ids=sorted(first),
        )
    return [str(instance["id"]) for instance in found]


def _read_claims(connection: Connection, attempts: Sequence[AttemptName]) -> list[Claim]:
    """Return the claims of those *attempts* that still run."""
    found = rows(
        connection,
        READ_CLAIMS,
        instances=[str(name.instance) for name in attempts],
        numbers=[name.number for name in attempts],
    )
    return [_claim(dict(values)) for values in found]


def _claim(values: dict[str, Any]) -> Claim:
    name = AttemptName(values.pop("instance"), values.pop("number"))
    return Claim(attempt=name, **values)


def begin(engine: Engine, name: AttemptName, pid: int) -> Claim:
    """Begin a claimed attempt in the process *pid*, and return its claim. Raises NotFound.

    An attempt begins once: a second process would start the crawl from nothing.
    """
    with engine.begin() as connection:
        begun = run(
            connection,
            """UPDATE catlog.instance_attempt SET begun_at = clock_timestamp(), pid = :pid
               WHERE instance_id = :instance AND attempt = :number AND outcome IS NULL
                 AND begun_at IS NULL""",
            instance=name.instance,
            number=name.number,
            pid=pid,
        )
        claims = _read_claims(connection, [name]) if begun else []
    if not claims:
        raise NotFound(f"attempt {name} is not running; it was lost, or it never was.")
    return claims[0]
