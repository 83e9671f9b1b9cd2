"""What runs and what has ended, as scrapyd wants to see it: the fleet's, not this node's."""

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
    """An attempt. Its times are local and know no zone, as scrapyd's do."""

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
    """A row of `store.jobs` as scrapyd wants it."""
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
    """The attempts that ended last, newest first. Asks the database: for threads only."""

    def __init__(self, config: Config) -> None:
        self.node = node_of(config)
        self.limit = config.getint("finished_to_keep", 100)

    def add(self, job: object) -> None:
        """Nothing: that an attempt has ended is in the database before anybody says so here."""

    def list(self) -> list[Job]:
        """All of them."""
        return [job_of(found) for found in jobs.ended(self.node.engine, limit=self.limit)]

    def __len__(self) -> int:
        return len(self.list())

    def __iter__(self) -> Iterator[Job]:
        return iter(self.list())
