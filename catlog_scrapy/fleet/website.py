"""Web pages of a node."""

from typing import Any
from urllib.parse import quote

from scrapyd import website
from scrapyd.config import Config

from catlog_scrapy.fleet.jobstorage import Job
from catlog_scrapy.fleet.node import node_of
from catlog_scrapy.fleet.rendering import ThreadedResource
from catlog_scrapy.store.queue import jobs


class Jobs(ThreadedResource, website.Jobs):
    """scrapyd's page of jobs, for the whole fleet, with each job's node, outcome and error."""

    def __init__(self, root: "Root") -> None:
        super().__init__(root)  # type: ignore[call-arg]
        self.headers += ["Node", "Outcome"]

    def prepare_finished(self) -> str:
        """Render the rows of ended attempts."""
        return "\n".join(
            self.prepare_row(
                {
                    "Project": website.escape(job.project),
                    "Spider": website.escape(job.spider),
                    "Job": website.escape(job.job),
                    "Start": website.no_microseconds(job.start_time),
                    "Runtime": website.no_microseconds(job.end_time - job.start_time),
                    "Finish": website.no_microseconds(job.end_time),
                    "Log": self.html_log_url(job),
                    "Node": website.escape(job.node),
                    "Outcome": website.escape(": ".join(filter(None, [job.outcome, job.error]))),
                }
            )
            for job in self.root.launcher.finished
        )

    def prepare_pending(self) -> str:
        """Render the rows of waiting jobs."""
        return "\n".join(
            self.prepare_row(
                {
                    "Project": website.escape(job.project or ""),
                    "Spider": website.escape(job.spider),
                    "Job": website.escape(job.job),
                    "Cancel": self.cancel_button(job.project or "", job.job),
                }
            )
            for job in jobs.pending(self.root.node.engine)
        )


class Root(website.Root):
    """scrapyd's root resource, with logs that may be on other nodes."""

    def __init__(self, config: Config, app: Any) -> None:
        super().__init__(config, app)
        self.node = node_of(config)
        self.putChild(b"jobs", Jobs(self))

    def get_log_url(self, job: Job) -> str | None:
        """Return the URL of a job's log, on this node or on the node that ran the job."""
        if not job.log:
            return None
        path = f"/logs/{quote(job.log.rpartition('/')[2])}"
        if job.node == self.node.name:
            return path
        return f"{job.node_url}{path}" if job.node_url else None

    def get_item_url(self, job: Job) -> None:
        """Return None: items are in the database."""
