"""scrapyd's API over the queue: every node gives the same replies.

Names, parameters and replies are scrapyd's. catlog adds fields: `node`, `outcome` and `error` of a
job, and `state` of its catalog.
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
from catlog_scrapy.fleet.rendering import ErrorReplies, ThreadedResource
from catlog_scrapy.fleet.spiderqueue import SpiderQueue
from catlog_scrapy.fleet.zygote_pool import IMPORT_TIMEOUT_S
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.sql import clean

MAX_JOB_ID_LENGTH = 200
# The database stores priorities as 32-bit integers.
MAX_PRIORITY = 2**31 - 1


class Service(ThreadedResource, webservice.WsResource, ErrorReplies):
    """Resource of scrapyd's API."""

    @property
    def node(self) -> NodeService:
        """Return this node."""
        node: NodeService = self.root.node
        return node

    def project(self, local_name: str | None) -> str | None:
        """Return the database name of a project. Raises NotFound."""
        return None if local_name is None else self.node.database_name(local_name)

    def call_in_reactor(self, work: Any) -> None:
        """Call *work* soon, in the reactor's thread."""
        from twisted.internet import reactor

        reactor.callFromThread(work)


class Schedule(Service):
    """`schedule.json`: queue a catalog of one operation, which any node may run."""

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
        """Queue the job."""
        version = version or None
        if version:
            self.node.projects.codes.find(project, version)
        for pair in setting:
            if "=" not in pair:
                raise NotPossible(f"{pair!r} is not a valid setting; use NAME=VALUE")
        arguments = {name.decode(): values[0].decode() for name, values in request.args.items()}
        texts = [*arguments, *arguments.values(), *setting, project, spider, jobid or ""]
        if any(clean(text) != text for text in texts):
            raise NotPossible("a parameter has the character U+0000; remove it")
        if len(jobid or "") > MAX_JOB_ID_LENGTH:
            raise NotPossible(f"jobid is too long; use at most {MAX_JOB_ID_LENGTH} characters")
        if not abs(priority) <= MAX_PRIORITY:
            raise NotPossible(
                f"{priority} is not a valid priority; use -{MAX_PRIORITY} to {MAX_PRIORITY}"
            )
        made = SpiderQueue(self.node.config, project).schedule(
            spider,
            arguments,
            settings=dict(pair.split("=", 1) for pair in setting),
            job=jobid or None,
            version=version,
            priority=round(priority),
        )
        self.call_in_reactor(self.root.poller.poll)
        return {"jobid": made}


class Cancel(Service):
    """`cancel.json`: cancel the catalog of a job on whichever node it runs.

    The job's process gets INT, and later KILL. The parameter `signal` is ignored.
    """

    @param("project")
    @param("job")
    @param("signal", required=False, default="INT")
    def render_POST(self, request: Request, project: str, job: str, signal: str) -> dict[str, Any]:
        """Cancel the job."""
        before = jobs.cancel(self.node.engine, self.project(project), job)
        self.call_in_reactor(self.root.launcher.check_leases)
        return {"prevstate": before}


class Status(Service):
    """`status.json`: the state of a job, and the state of its catalog."""

    @param("job")
    @param("project", required=False)
    def render_GET(self, request: Request, job: str, project: str | None) -> dict[str, Any]:
        """Return the states."""
        now, state = jobs.state(self.node.engine, self.project(project), job)
        return {"currstate": now, "state": state}


class DaemonStatus(Service):
    """`daemonstatus.json`: counts of waiting, running and recently ended jobs of the fleet."""

    def render_GET(self, request: Request) -> dict[str, Any]:
        """Return the counts."""
        return {
            "pending": jobs.count_pending(self.node.engine),
            "running": len(jobs.running(self.node.engine)),
            "finished": len(self.root.launcher.finished),
        }


class ListJobs(Service):
    """`listjobs.json`: the fleet's waiting and running jobs, and the jobs that ended last."""

    @param("project", required=False)
    def render_GET(self, request: Request, project: str | None) -> dict[str, Any]:
        """Return the jobs."""
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
    """`listprojects.json`: the projects of this node."""

    def render_GET(self, request: Request) -> dict[str, Any]:
        """Return the names."""
        return {"projects": self.node.projects.display_names()}


class ListSpiders(Service):
    """`listspiders.json`: the spiders of a project, from its zygote without a new process."""

    @param("project")
    @param("_version", dest="version", required=False, default=None)
    def render_GET(self, request: Request, project: str, version: str | None) -> dict[str, Any]:
        """Return the names."""
        return {"spiders": sorted(self.node.projects.capabilities(project, version).spiders)}


class AddVersion(Service):
    """`addversion.json`: store an egg, import it, and apply its declarations."""

    @param("project")
    @param("version")
    @param("egg", type=bytes)
    def render_POST(
        self, request: Request, project: str, version: str, egg: bytes
    ) -> dict[str, Any]:
        """Deploy the egg, or store nothing if it cannot be imported or applied."""
        if not project or not version:
            raise NotPossible("project or version is empty; name both")
        if not is_zipfile(BytesIO(egg)):
            raise NotPossible("egg is not a ZIP file; with curl, use egg=@path, not egg=path")
        self.root.eggstorage.put(BytesIO(egg), project, version)
        self.root.update_projects()
        projects = self.node.projects
        try:
            spiders = projects.capabilities(project, version, timeout_s=IMPORT_TIMEOUT_S).spiders
            applied = projects.apply(project, version)
        except CatlogError as error:
            # Otherwise it would be the newest version, which all jobs run.
            projects.discard(project, version)
            raise NotPossible(f"not deployed: {error}") from error
        self.call_in_reactor(self.root.poller.poll)
        return {
            "project": project,
            "version": version,
            "spiders": len(spiders),
            "applied": applied,
        }
