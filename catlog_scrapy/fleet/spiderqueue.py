"""Spider queue: the waiting instances of one project, as scrapyd's messages."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scrapyd.config import Config
from scrapyd.interfaces import ISpiderQueue
from zope.interface import implementer

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.fleet.node import node_of
from catlog_scrapy.fleet.project_code import ProjectFailed
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.queue.starting import start_waiting
from catlog_scrapy.store.reading.status import scheme_operations

# Parameters of scrapyd's messages that are not arguments of the spider.
RESERVED_PARAMETERS = {"_job", "_version", "settings"}


@implementer(ISpiderQueue)
class SpiderQueue:
    """The waiting jobs of *project*. Queries the database: use it in threads.

    Nothing is popped from it: nodes claim instances, and a claimed instance waits no longer.
    """

    def __init__(self, config: Config, project: str) -> None:
        self.node = node_of(config)
        self.local_name = project

    @property
    def project(self) -> str:
        """Return the project's database name."""
        return self.node.database_name(self.local_name)

    def add(self, name: str, priority: float = 0.0, **message: Any) -> str:
        """Queue a message of scrapyd: see `schedule`."""
        return self.schedule(
            name,
            {key: value for key, value in message.items() if key not in RESERVED_PARAMETERS},
            settings=message.get("settings", {}),
            job=message.get("_job"),
            version=message.get("_version"),
            priority=round(priority),
        )

    def schedule(
        self,
        spider: str,
        arguments: Mapping[str, str],
        *,
        settings: Mapping[str, str],
        job: str | None,
        version: str | None,
        priority: int,
    ) -> str:
        """Queue a catalog of the operation *spider* and return its job id. Raises CatlogError."""
        engine = self.node.engine
        operation = jobs.operation_of(engine, self.project, spider)
        self._check_arguments(operation, arguments)
        made = jobs.schedule(
            engine,
            operation,
            job=job,
            version=version,
            settings=settings,
            arguments=arguments,
            priority=priority,
        )
        start_waiting(engine)
        return made

    def _check_arguments(self, operation: jobs.JobOperation, arguments: Iterable[str]) -> None:
        """Raise NotFound for an unknown argument, if this node has the project."""
        try:
            capabilities = self.node.projects.capabilities(self.local_name)
        except (NotFound, ProjectFailed):
            return
        operations = scheme_operations(self.node.engine, operation.provider, operation.scheme)
        found = [row for row in operations if row["name"] == operation.name]
        title = f"{operation.provider}/{operation.scheme}/{operation.name}"
        capabilities.require_known(title, found, arguments)

    def list(self) -> list[dict[str, Any]]:
        """List the waiting jobs in the order of the queue."""
        return [
            {
                **job.arguments,
                "name": job.spider,
                "_job": job.job,
                **({"_version": job.version} if job.version else {}),
                "settings": job.settings,
            }
            for job in jobs.pending(self.node.engine, self.project)
        ]

    def count(self) -> int:
        """Count the waiting jobs."""
        return jobs.count_pending(self.node.engine, self.project)

    def remove(self, func: Callable[[dict[str, Any]], bool]) -> int:
        """Cancel the catalogs of all messages for which *func* is true, and count them."""
        found = {message["_job"] for message in self.list() if func(message)}
        return sum(bool(jobs.cancel(self.node.engine, self.project, job)) for job in found)

    def clear(self) -> None:
        """Cancel all waiting jobs."""
        self.remove(lambda _: True)

    def pop(self) -> None:
        """Do nothing: nodes claim instances instead."""
