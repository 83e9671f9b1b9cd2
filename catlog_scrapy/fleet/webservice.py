"""scrapyd's web pages and API, answered from the queue: on every node the same.

Names, parameters and replies are scrapyd's. Where it is silent, catlog says more: `node`, `outcome`
and `error` of a job, `state` of its catalog.
"""

from io import BytesIO
from typing import Any
from zipfile import is_zipfile

from scrapyd import webservice
from scrapyd.webservice import param
from twisted.web.server import Request

from catlog_scrapy.exceptions import CatlogError, NotPossible
from catlog_scrapy.fleet.jobstorage import Job, job_of
from catlog_scrapy.fleet.node import NodeService
from catlog_scrapy.fleet.projects import IMPORT_TIMEOUT_S
from catlog_scrapy.fleet.rendering import ErrorReplies, ThreadedResource
from catlog_scrapy.fleet.spiderqueue import SpiderQueue
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.sql import clean

MAX_JOB_ID_LENGTH = 200


class Service(ThreadedResource, webservice.WsResource, ErrorReplies):
    """A service of scrapyd's API."""

    @property
    def node(self) -> NodeService:
        """The node that replies."""
        node: NodeService = self.root.node
        return node

    def project(self, local_name: str | None) -> str | None:
        """What the database calls a project. Raises NotFound."""
        return None if local_name is None else self.node.project(local_name)

    def soon(self, work: Any) -> None:
        """Have *work* called in the reactor's thread."""
        from twisted.internet import reactor

        reactor.callFromThread(work)


class Schedule(Service):
    """Queues a catalog of one operation; any node runs it."""

    @param("project")
    @param("spider")
    @param("_version", dest="version", required=False, default=None)
    @param("jobid", required=False, default=None)
    @param("priority", required=False, default=0, type=float)
    @param("setting", required=False, default=list, multiple=True)
    def render_POST(
        self,
        request: Request,
        *,
        project: str,
        spider: str,
        version: str | None,
        jobid: str | None,
        priority: float,
        setting: list[str],
    ) -> dict[str, Any]:
        version = version or None
        if version:
            self.node.projects.code(project, version)
        wrong = [pair for pair in setting if "=" not in pair]
        if wrong:
            raise NotPossible(f"setting {wrong[0]!r} is not of the form NAME=VALUE")
        arguments = {name.decode(): values[0].decode() for name, values in request.args.items()}
        texts = [*arguments, *arguments.values(), *setting, project, spider, jobid or ""]
        if any(clean(text) != text for text in texts):
            raise NotPossible("a parameter holds U+0000, which no database stores")
        if len(jobid or "") > MAX_JOB_ID_LENGTH or not abs(priority) < 2**31:
            raise NotPossible(f"jobid has {MAX_JOB_ID_LENGTH} letters at most, priority 31 bits")
        made = SpiderQueue(self.node.config, project).schedule(
            spider,
            arguments,
            settings=dict(pair.split("=", 1) for pair in setting),
            job=jobid or None,
            version=version,
            priority=round(priority),
        )
        self.soon(self.root.poller.poll)
        return {"jobid": made}


class Cancel(Service):
    """Cancels the catalog of a job, wherever it runs: its process gets INT, and in the end KILL.

    `signal` is accepted, and makes no difference.
    """

    @param("project")
    @param("job")
    @param("signal", required=False, default="INT")
    def render_POST(self, request: Request, project: str, job: str, signal: str) -> dict[str, Any]:
        before = jobs.cancel(self.node.engine, self.project(project), job)
        self.soon(self.root.launcher.check_leases)
        return {"prevstate": before}


class Status(Service):
    """Whether a job waits, runs or is over, and how its catalog stands."""

    @param("job")
    @param("project", required=False)
    def render_GET(self, request: Request, job: str, project: str | None) -> dict[str, Any]:
        now, state = jobs.state(self.node.engine, self.project(project), job)
        return {"currstate": now, "state": state}


class DaemonStatus(Service):
    """How much waits, runs and has ended in the whole fleet; of the last, the newest."""

    def render_GET(self, request: Request) -> dict[str, Any]:
        return {
            "pending": jobs.count_pending(self.node.engine),
            "running": len(jobs.running(self.node.engine)),
            "finished": len(self.root.launcher.finished),
        }


class ListJobs(Service):
    """All that waits and runs in the fleet, and what ended last."""

    @param("project", required=False)
    def render_GET(self, request: Request, project: str | None) -> dict[str, Any]:
        engine, wanted = self.node.engine, self.project(project)
        running = map(job_of, jobs.running(engine, wanted))
        ended = map(job_of, jobs.ended(engine, wanted, limit=self.root.launcher.finished.limit))
        return {
            "pending": [
                {
                    "id": job.job,
                    "project": project or job.project,
                    "spider": job.spider,
                    "version": job.version,
                    "settings": job.settings,
                    "args": job.arguments,
                }
                for job in jobs.pending(engine, wanted)
            ],
            "running": [{**self._job(job, project), "pid": job.pid} for job in running],
            "finished": [
                {
                    **self._job(job, project),
                    "end_time": str(job.end_time),
                    "outcome": job.outcome,
                    "error": job.error,
                }
                for job in ended
            ],
        }

    def _job(self, job: Job, project: str | None) -> dict[str, Any]:
        return {
            "id": job.job,
            "project": project or job.project,
            "spider": job.spider,
            "start_time": str(job.start_time),
            "log_url": self.root.get_log_url(job),
            "items_url": None,
            "node": job.node,
            "state": job.state,
        }


class ListProjects(Service):
    """The projects that this node has, by their names in the database where they lie here."""

    def render_GET(self, request: Request) -> dict[str, Any]:
        return {"projects": self.node.projects.shown()}


class ListSpiders(Service):
    """The spiders of a project, from its zygote: nothing is started for the question."""

    @param("project")
    @param("_version", dest="version", required=False, default=None)
    def render_GET(self, request: Request, project: str, version: str | None) -> dict[str, Any]:
        return {"spiders": sorted(self.node.projects.capabilities(project, version).spiders)}


class AddVersion(Service):
    """Stores an egg, imports it to see what it offers, and applies what it declares."""

    @param("project")
    @param("version")
    @param("egg", type=bytes)
    def render_POST(
        self, request: Request, project: str, version: str, egg: bytes
    ) -> dict[str, Any]:
        if not project or not version:
            raise NotPossible("project and version must not be empty")
        if not is_zipfile(BytesIO(egg)):
            raise NotPossible("egg is not a ZIP file (if using curl, use egg=@path not egg=path)")
        self.root.eggstorage.put(BytesIO(egg), project, version)
        self.root.update_projects()
        try:
            projects = self.node.projects
            spiders = projects.capabilities(project, version, timeout_s=IMPORT_TIMEOUT_S).spiders
            applied = self.node.projects.apply(project, version)
        except CatlogError as why:
            # It would be the newest, and so what all jobs run on.
            self.node.projects.discard(project, version)
            raise NotPossible(f"not deployed: {why}") from why
        self.soon(self.root.poller.poll)
        return {
            "project": project,
            "version": version,
            "spiders": len(spiders),
            "applied": applied,
        }
