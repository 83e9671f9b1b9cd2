"""The queue as jobs of scrapyd's API: a job is a catalog of one operation, or an instance of it.

All instances of a catalog have the same job id: the client's own, or else the catalog's.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.queue.arguments import check_arguments
from catlog_scrapy.store.queue.catalog_states import OPEN_STATES
from catlog_scrapy.store.sql import row, rows, run, scalar

JOB = "coalesce(c.job, replace(c.id::text, '-', ''))"
# A provider without a project belongs to every project.
OF_PROJECT = "(CAST(:project AS text) IS NULL OR coalesce(p.project, :project) = :project)"
TABLES = """
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    JOIN catlog.catalog c ON c.id = i.catalog_id
    JOIN catlog.provider p ON p.id = i.provider_id"""


@dataclass(frozen=True)
class JobOperation:
    """Operation of a scheme, which scrapyd's API calls a spider."""

    provider: str
    scheme: str
    name: str
    is_only_operation: bool


@dataclass(frozen=True)
class PendingJob:
    """A job that waits: an instance, or a catalog that has not started.

    `version` is the only version of the project that may run the job, None for any.
    """

    job: str
    project: str | None
    spider: str
    arguments: dict[str, str]
    settings: dict[str, str]
    version: str | None
    priority: int
    position: int | None


@dataclass(frozen=True)
class JobRun:
    """A running or ended attempt of a job; `state` is that of its catalog."""

    job: str
    project: str | None
    spider: str
    node: str
    node_url: str | None
    pid: int | None
    log: str | None
    started_at: dt.datetime
    finished_at: dt.datetime | None
    outcome: str | None
    error: str | None
    state: str


def operation_of(engine: Engine, project: str, spider: str) -> JobOperation:
    """Find the operation of *spider*, a spider's name or `provider/scheme[/operation]`.

    Raises NotFound, or NotPossible if several operations run the spider.
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
            f"{spider!r} is not an operation of project {project!r}; declare it in a provider"
            " file and run scrapy apply"
        )
    if len(found) > 1:
        found = [operation for operation in found if operation["name"] == spider] or found
    if len(found) > 1:
        names = ", ".join(f"{o['provider']}/{o['scheme']}/{o['name']}" for o in found)
        raise NotPossible(f"several operations run {spider!r}; use {names} as the spider")
    return JobOperation(**found[0])


def has_project(engine: Engine, project: str) -> bool:
    """Return whether a provider belongs to *project*."""
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
    """Create a catalog of *operation* and return its job id.

    Raises NotPossible if another catalog has the id *job*.
    """
    with engine.begin() as connection:
        if job:
            # The second of two concurrent requests with one id waits, then sees the first's job.
            run(connection, "SELECT pg_advisory_xact_lock(hashtextextended(:job, 0))", job=job)
            if _catalog_of(connection, None, job):
                raise NotPossible(f"a job {job!r} exists already; use another id")
        scheme = catalogs.find_scheme(connection, operation.provider, operation.scheme)
        check_arguments(connection, scheme.provider_id, arguments)
        made = catalogs.insert_catalog(
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
            raise NotPossible("a catalog for this due time exists already")
    return job or made.hex


def cancel(engine: Engine, project: str | None, job: str) -> str | None:
    """Cancel the catalog of *job* and return its former state: `pending`, `running`, None if ended.

    In scrapyd's words, a catalog that waits to be published is still running.
    """
    with engine.connect() as connection:
        found = _catalog_of(connection, project, job)
    if found is None or found["state"] not in OPEN_STATES:
        return None
    catalogs.cancel(engine, found["id"])
    return "running" if found["is_held"] else "pending"


def state(engine: Engine, project: str | None, job: str) -> tuple[str | None, str | None]:
    """Return the state of *job* in scrapyd's words, and its catalog's; None if unknown."""
    with engine.connect() as connection:
        found = _catalog_of(connection, project, job)
    if found is None:
        return None, None
    if found["is_held"]:  # after a cancellation, until its process has stopped
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


def pending(engine: Engine, project: str | None = None) -> list[PendingJob]:
    """Return the waiting jobs, in the order of the queue."""
    with engine.connect() as connection:
        found = rows(
            connection, f"{PENDING} ORDER BY priority DESC, position NULLS LAST", project=project
        )
    return [PendingJob(**job) for job in found]


def count_pending(engine: Engine, project: str | None = None) -> int:
    """Count the waiting jobs."""
    with engine.connect() as connection:
        return int(scalar(connection, f"SELECT count(*) FROM ({PENDING}) AS p", project=project))


RUNNING_OR_ENDED = f"""
    SELECT {JOB} AS job, p.project, o.spider, a.node, n.url AS node_url, a.pid, a.log,
        a.started_at, a.finished_at, a.outcome, coalesce(a.error, c.error) AS error, c.state
    FROM catlog.instance_attempt a
    JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id {TABLES}
    LEFT JOIN catlog.node n ON n.name = a.node"""


def running(engine: Engine, project: str | None = None) -> list[JobRun]:
    """Return the jobs that workers and nodes run now, oldest first."""
    with engine.connect() as connection:
        found = rows(
            connection,
            f"""{RUNNING_OR_ENDED}
                WHERE i.node IS NOT NULL AND a.attempt = i.attempt AND {OF_PROJECT}
                ORDER BY a.started_at""",
            project=project,
        )
    return [JobRun(**job) for job in found]


def ended(engine: Engine, project: str | None = None, *, limit: int = 100) -> list[JobRun]:
    """Return the last ended attempts, newest first, with `outcome` and `error`."""
    with engine.connect() as connection:
        found = rows(
            connection,
            f"""{RUNNING_OR_ENDED}
                WHERE a.finished_at IS NOT NULL AND {OF_PROJECT}
                ORDER BY a.finished_at DESC LIMIT :limit""",
            project=project,
            limit=limit,
        )
    return [JobRun(**job) for job in found]
