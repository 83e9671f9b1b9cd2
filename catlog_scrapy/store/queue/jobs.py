"""The queue as scrapyd's API shows it: a job is a catalog of one operation, or an instance of one.

All ids of one catalog are the same: the client's own, or the catalog's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.queue.arguments import check_arguments
from catlog_scrapy.store.queue.catalog_states import OPEN_STATES
from catlog_scrapy.store.sql import row, rows, run

JOB = "coalesce(c.job, replace(c.id::text, '-', ''))"
# Of providers that were declared before projects were told apart, nobody knows whose they are.
OF_PROJECT = "(CAST(:project AS text) IS NULL OR coalesce(p.project, :project) = :project)"
TABLES = """
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    JOIN catlog.catalog c ON c.id = i.catalog_id
    JOIN catlog.provider p ON p.id = i.provider_id"""


@dataclass(frozen=True)
class JobOperation:
    """What scrapyd calls a spider: the operation of a scheme that runs it."""

    provider: str
    scheme: str
    name: str
    is_only_operation: bool


def operation_of(engine: Engine, project: str, spider: str) -> JobOperation:
    """The operation that *spider* names: by its spider, or as `provider/scheme[/operation]`.

    Raises NotFound, or NotPossible where several operations run it.
    """
    with engine.connect() as connection:
        found = rows(
            connection,
            f"""SELECT p.name AS provider, s.name AS scheme, o.name,
                   (SELECT count(*) FROM catlog.catalog_scheme_operation WHERE scheme_id = s.id) = 1
                   AS is_only_operation
               FROM catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id
               WHERE s.retired_at IS NULL AND o.executor = 'scrapy' AND {OF_PROJECT}
                 AND :spider IN (o.spider, p.name || '/' || s.name,
                     p.name || '/' || s.name || '/' || o.name)
               ORDER BY 1, 2, 3""",
            project=project,
            spider=spider,
        )
    if not found:
        raise NotFound(
            f"spider {spider!r} is no operation of project {project!r}: declare it in a provider"
            " file, and run scrapy apply"
        )
    if len(found) > 1:
        found = [operation for operation in found if operation["name"] == spider] or found
    if len(found) > 1:
        names = ", ".join(f"{o['provider']}/{o['scheme']}/{o['name']}" for o in found)
        raise NotPossible(f"several operations run {spider!r}: name one of {names} as the spider")
    return JobOperation(**found[0])


def has_project(engine: Engine, project: str) -> bool:
    """Whether any provider belongs to *project*."""
    with engine.connect() as connection:
        return bool(row(connection, "SELECT 1 FROM catlog.provider WHERE project = :p", p=project))


def schedule(
    engine: Engine,
    operation: JobOperation,
    *,
    job: str | None = None,
    arguments: Mapping[str, str],
    settings: Mapping[str, str],
    priority: int = 0,
    version: str | None = None,
) -> str:
    """A new catalog of *operation*, started; its job id.

    Raises NotPossible where *job* is the id of another one.
    """
    with engine.begin() as connection:
        if job:
            # Of two that come at once with one id, the second waits and then sees the first.
            run(connection, "SELECT pg_advisory_xact_lock(hashtextextended(:job, 0))", job=job)
            if _catalog_of(connection, None, job):
                raise NotPossible(f"there is a job {job!r} already; give this one another id")
        scheme = catalogs.find_scheme(connection, operation.provider, operation.scheme)
        check_arguments(connection, scheme["provider_id"], arguments)
        made = catalogs.insert(
            connection,
            scheme,
            arguments=arguments,
            operation=None if operation.is_only_operation else operation.name,
            origin="job",
            priority=priority,
            job=job,
            settings=settings,
            project_version=version,
        )
        if made is None:
            raise NotPossible("there is a catalog for this due time already")
    return job or made.hex


def cancel(engine: Engine, project: str | None, job: str) -> str | None:
    """Cancel the catalog of *job*; its state before, `pending` or `running`, None if it was over.

    A catalog that only waits to be published still runs, in scrapyd's words.
    """
    with engine.connect() as connection:
        found = _catalog_of(connection, project, job)
    if found is None or found["state"] not in OPEN_STATES:
        return None
    catalogs.cancel(engine, found["id"])
    return "running" if found["is_held"] else "pending"


def state(engine: Engine, project: str | None, job: str) -> tuple[str | None, str | None]:
    """What scrapyd would say of *job*, and its catalog's state; None for an unknown one."""
    with engine.connect() as connection:
        found = _catalog_of(connection, project, job)
    if found is None:
        return None, None
    if found["is_held"]:  # a cancelled one still runs until its process has stopped
        return "running", found["state"]
    return "pending" if found["state"] in OPEN_STATES else "finished", found["state"]


def _catalog_of(connection: Connection, project: str | None, job: str) -> Mapping[str, Any] | None:
    try:
        id_ = UUID(job)
    except ValueError:
        id_ = None
    return row(
        connection,
        f"""SELECT c.id, c.state, c.state = 'publishing' OR EXISTS (
                SELECT 1 FROM catlog.catalog_scheme_operation_instance
                WHERE catalog_id = c.id AND node IS NOT NULL) AS is_held
            FROM catlog.catalog c JOIN catlog.provider p ON p.id = c.provider_id
            WHERE (c.job = :job OR c.id = :id) AND {OF_PROJECT}""",
        job=job,
        id=id_,
        project=project,
    )


PENDING = f"""
    SELECT {JOB} AS job, p.project, o.spider, i.arguments, c.settings, c.project_version AS version,
        i.priority, i.position
    FROM catlog.catalog_scheme_operation_instance i {TABLES}
    WHERE i.state = 'new' AND o.executor = 'scrapy' AND {OF_PROJECT}
    UNION ALL
    SELECT {JOB}, p.project, o.spider, c.arguments, c.settings, c.project_version, c.priority, NULL
    FROM catlog.catalog c
    JOIN catlog.provider p ON p.id = c.provider_id
    JOIN catlog.catalog_scheme_operation o ON o.scheme_id = c.scheme_id
        AND coalesce(c.operation, o.name) = o.name AND o.executor = 'scrapy'
    WHERE c.state = 'waiting' AND {OF_PROJECT}"""


def pending(engine: Engine, project: str | None = None) -> list[Mapping[str, Any]]:
    """What waits to be run, in the order of the queue: job, project, spider, version and so on."""
    with engine.connect() as connection:
        return rows(
            connection, f"{PENDING} ORDER BY priority DESC, position NULLS LAST", project=project
        )


def count_pending(engine: Engine, project: str | None = None) -> int:
    """How many there are of them."""
    with engine.connect() as connection:
        found = row(connection, f"SELECT count(*) AS n FROM ({PENDING}) AS p", project=project)
    return int(found["n"]) if found else 0


RUNNING_OR_ENDED = f"""
    SELECT {JOB} AS job, p.project, o.spider, a.node, n.url AS node_url, a.pid, a.log,
        a.started_at, a.finished_at, a.outcome, coalesce(a.error, c.error) AS error, c.state
    FROM catlog.instance_attempt a
    JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id {TABLES}
    LEFT JOIN catlog.node n ON n.name = a.node"""


def running(engine: Engine, project: str | None = None) -> list[Mapping[str, Any]]:
    """What any worker or node runs now, oldest first."""
    with engine.connect() as connection:
        return rows(
            connection,
            f"""{RUNNING_OR_ENDED}
                WHERE i.node IS NOT NULL AND a.attempt = i.attempt AND {OF_PROJECT}
                ORDER BY a.started_at""",
            project=project,
        )


def ended(
    engine: Engine, project: str | None = None, *, limit: int = 100
) -> list[Mapping[str, Any]]:
    """The attempts that ended last, newest first: `outcome` and `error` say how."""
    with engine.connect() as connection:
        return rows(
            connection,
            f"""{RUNNING_OR_ENDED}
                WHERE a.finished_at IS NOT NULL AND {OF_PROJECT}
                ORDER BY a.finished_at DESC LIMIT :limit""",
            project=project,
            limit=limit,
        )
