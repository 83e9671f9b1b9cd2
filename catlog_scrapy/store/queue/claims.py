"""Claims of instances by workers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError

from catlog_scrapy.db.migrations import head
from catlog_scrapy.exceptions import NotFound, SchemaMismatch
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.sql import Database, call, run, scalar

OTHER_REVISION = "the database has moved to another revision; restart with its catlog."
# SQLSTATE: another revision has changed the parameters of the function.
UNDEFINED_FUNCTION = "42883"


@dataclass(frozen=True)
class Claim:
    """A running attempt with everything that its worker needs.

    `kinds` are its record types: name, key, fields, and `foreign` for a type that is declared for
    a spider that has none. `seconds` is the time limit. `project` is the Scrapy project that has
    the spider, None if unknown; `project_version` is the only version that may run the attempt.
    `settings` are Scrapy settings for this attempt alone. `given` are the names of the arguments
    that came with the load, not from its operation. `secrets` are the names of the provider's
    secrets. `age` is the time since the claim in seconds.
    """

    attempt: AttemptName
    catalog: UUID
    operation_id: UUID
    project: str | None
    project_version: str | None
    settings: dict[str, str]
    provider: str
    provider_id: UUID
    scheme: str
    operation: str
    part: str
    spider: str
    mode: str
    isolate: bool
    arguments: dict[str, str]
    given: list[str]
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


CLAIM = """
    SELECT * FROM catlog.claim_instances(
        :revision, :worker, :max_instances, :lease, CAST(:catalogs AS uuid[]), :executor,
        CAST(:refused AS uuid[]), CAST(:tags AS jsonb), :logs, CAST(:providers AS uuid[]),
        CAST(:heads AS bigint[]), CAST(:revisions AS int[]), CAST(:since AS timestamptz[]))"""


def claim(
    engine: Database,
    node: str,
    *,
    limit: int = 1,
    lease: float = 60.0,
    catalogs: Sequence[UUID] | None = None,
    executor: str = "scrapy",
    tags: Collection[str] = (),
    logs: str | None = None,
    refused: Collection[UUID] = (),
) -> list[Claim]:
    """Claim up to *limit* instances of one provider, by priority, then age.

    A claim in a caller's transaction uses the claim hints, but does not search for new ones.
    *lease* is in seconds. Only instances of *catalogs* are claimed, unless it is None, and none of
    the operations and catalogs in *refused*. All tags of an operation must be among *tags*. The log
    of an attempt is `<attempt>.log` in the folder *logs*. Raises SchemaMismatch if the database has
    moved to another revision: the worker must stop.
    """
    hints = claim_hints_of(engine, executor, tags)
    if isinstance(engine, Engine):
        hints.refresh(engine)
    try:
        found = call(
            engine,
            CLAIM,
            revision=head(),
            worker=node,
            max_instances=limit,
            lease=lease,
            catalogs=[str(catalog) for catalog in catalogs] if catalogs is not None else None,
            refused=[str(id_) for id_ in refused],
            logs=logs,
            **hints.parameters(),
        )
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != UNDEFINED_FUNCTION:
            raise
        raise SchemaMismatch(OTHER_REVISION) from error
    if found["database_revision"] != head():
        raise SchemaMismatch(OTHER_REVISION)
    hints.learn(found["provider"], found["running_since"])
    return [_claim(values) for values in found["claims"]]


def _claim(values: dict[str, Any]) -> Claim:
    """Return a claim from the JSON of catlog.read_claims."""
    return Claim(
        attempt=AttemptName(UUID(values.pop("instance")), values.pop("number")),
        catalog=UUID(values.pop("catalog")),
        provider_id=UUID(values.pop("provider_id")),
        operation_id=UUID(values.pop("operation_id")),
        **values,
    )


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
        claims = (
            scalar(
                connection,
                "SELECT catlog.read_claims(ARRAY[CAST(:instance AS uuid)], ARRAY[:number])",
                instance=name.instance,
                number=name.number,
            )
            if begun
            else []
        )
    if not claims:
        raise NotFound(f"attempt {name} is not running; it was lost, or it never was.")
    return _claim(claims[0])
