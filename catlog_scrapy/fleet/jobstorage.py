"""Job storage: running and ended attempts of the whole fleet, as scrapyd's jobs."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from scrapyd.config import Config
from scrapyd.interfaces import IJobStorage
from zope.interface import implementer

from catlog_scrapy.fleet.node import node_of
from catlog_scrapy.store.queue import jobs


@dataclass(frozen=True)
class Job:
    """An attempt as scrapyd's job. Its times are local and without time zone, as scrapyd's are."""

    project: str
    spider: str
    job: str
    pid: int | None
    node: str
    node_url: str | None
    log: str | None
    start_time: dt.datetime
    end_time: dt.datetime | None
    outcome: str | None
    error: str | None
    state: str


def job_of(found: jobs.JobRun) -> Job:
    """Build scrapyd's job from an attempt of the queue."""
    return Job(
        project=found.project or "",
        spider=found.spider,
        job=found.job,
        pid=found.pid,
        node=found.node,
        node_url=found.node_url,
        log=found.log,
        start_time=_local(found.started_at),
        end_time=_local(found.finished_at) if found.finished_at else None,
        outcome=found.outcome,
        error=found.error,
        state=found.state,
    )


def _local(instant: dt.datetime) -> dt.datetime:
    return instant.astimezone().replace(tzinfo=None)


@implementer(IJobStorage)
class JobStorage:
    """The attempts that ended last, newest first. Queries the database: use it in threads."""

    def __init__(self, config: Config) -> None:
        self.node = node_of(config)
        self.limit = config.getint("finished_to_keep", 100)

    def add(self, job: object) -> None:
        """Do nothing: the end of an attempt is in the database already."""

    def list(self) -> list[Job]:
        """List the attempts."""
        return [job_of(row) for row in jobs.ended(self.node.engine, limit=self.limit)]

    def __len__(self) -> int:
        return len(self.list())

    def __iter__(self) -> Iterator[Job]:
        return iter(self.list())
