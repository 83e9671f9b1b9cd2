"""Node service: the database, name and projects that the components of a node share."""

import atexit
import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

from scrapy.settings import Settings
from scrapy.utils.project import get_project_settings, inside_project
from scrapyd.config import Config
from scrapyd.exceptions import ConfigError
from twisted.logger import Logger

from catlog_scrapy.addon import CatlogAddon
from catlog_scrapy.config import unknown_names, worker_tags
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.fleet.project_code import ProjectFailed
from catlog_scrapy.fleet.projects import Projects
from catlog_scrapy.fleet.zygote_client import ZygoteProcess
from catlog_scrapy.plurals import counted
from catlog_scrapy.project import project_database
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue import nodes
from catlog_scrapy.store.queue.attempts import AttemptName, end_orphaned_attempts, fail, release
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.jobs import has_project
from catlog_scrapy.store.queue.leases import supervise
from catlog_scrapy.store.reading.status import attempt_outcome
from catlog_scrapy.worker.attempt_logs import logs_folder, logs_to_delete

log = Logger()

LOG_CLEANUP_INTERVAL_S = 3600.0
# Interval of writing the node's row to the database.
STATUS_INTERVAL_S = 1.0
# Time for which claims of a broken project are left to other nodes.
REFUSAL_DURATION_S = 30.0
# Longest pause after spider processes that did not start.
MAX_PAUSE_S = 30.0
# Time by which a node waits longer for its name than the lease of a former process lasts.
NAME_LEASE_SLACK_S = 5.0


class NodeService:
    """A scrapyd of the fleet, named CATLOG_NODE:PORT.

    Its methods query the database and are called in threads.
    """

    def __init__(self, config: Config, *, host: str, port: int, slots: int) -> None:
        """Open the database. Raises CatlogError if that is not possible."""
        self.config = config
        settings = get_project_settings() if inside_project() else Settings()
        CatlogAddon.update_pre_crawler_settings(settings)
        for line in unknown_names(settings):
            log.warn("{line}", line=line)
        self.settings = settings
        self.home = Path(settings["CATLOG_HOME"])
        self.logs = logs_folder(settings)
        self.name = f"{settings['CATLOG_NODE']}:{port}"
        self.url = f"http://{host}:{port}"
        self.slots = slots
        self.tags = worker_tags(settings)
        self.lease = settings.getfloat("CATLOG_LEASE")
        self.grace = settings.getfloat("CATLOG_GRACE")
        self.poll_interval = config.getfloat("poll_interval", 1.0)
        self.running: dict[AttemptName, Claim] = {}
        self.refused: dict[UUID, float] = {}
        self.ready_zygotes: frozenset[ZygoteProcess] = frozenset()
        self.is_draining = False
        self.error: str | None = None
        self.status_reported_at = 0.0
        self.pause_until = 0.0
        self.failed_starts = 0
        self.logs_cleaned_at = 0.0
        self._stack = ExitStack()
        # A node that cannot start, or is stopped before it runs, releases the embedded server too.
        atexit.register(self._stack.close)
        self.engine = self._stack.enter_context(project_database(settings))
        environment = {
            "CATLOG_DATABASE_URL": self.engine.url.render_as_string(hide_password=False),
            "CATLOG_HOME": str(self.home),
        }
        self.projects = Projects(config, self.home, environment)
        self.name_lease = nodes.NodeNameLease(
            self.engine, self.name, poll_interval=self.poll_interval
        )

    def start(self) -> None:
        """Register the node, and end the attempts that its former process left running."""
        nodes.register(
            self.engine,
            self.name,
            url=self.url,
            pid=os.getpid(),
            version=version("catlog-scrapy"),
            slots=self.slots,
            tags=self.tags,
            poll=self.poll_interval,
        )
        lost = end_orphaned_attempts(self.engine, self.name)
        if lost:
            text = counted(lost, "attempt")
            log.info("lost with the node's former process: {text}", text=text)

    def lease_name(self) -> None:
        """Take the lease of the node's name. Raises NameTaken if another node holds it.

        The lease of a killed node that this machine does not know expires meanwhile.
        """
        end = time.monotonic() + self.name_lease.lease + NAME_LEASE_SLACK_S
        while True:
            try:
                self.name_lease.acquire()
                return
            except nodes.NameTaken as taken:
                if taken.is_running or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def poll(self, free: int) -> list[tuple[Claim, ZygoteProcess]]:
        """Claim instances for *free* slots, each with the zygote to run it. Raises nothing."""
        found: list[tuple[Claim, ZygoteProcess]] = []
        try:
            self.name_lease.acquire()
            projects = self.projects.status()
            if not self._is_pausing() and not self.projects.zygotes.is_starting():
                self._claim(free, found)
            self._report_status(projects)
        except UNAVAILABLE as error:
            self.report_error(f"the database is unavailable: {reason(error)}")
        except Exception as error:  # the boundary of the thread: the next poll tries again
            self.report_error(f"{type(error).__name__}: {error}")
        return found

    def _is_pausing(self) -> bool:
        return self.is_draining or time.monotonic() < self.pause_until

    def _claim(self, free: int, found: list[tuple[Claim, ZygoteProcess]]) -> None:
        """Append each claim to *found* at once, so that no later error loses a claim."""
        ready_zygotes = self.projects.zygotes.ready()
        if ready_zygotes != self.ready_zygotes:
            self.ready_zygotes = ready_zygotes
            self.refused.clear()
        while free > len(found):
            now = time.monotonic()
            claims = claim(
                self.engine,
                self.name,
                limit=free - len(found),
                lease=self.lease,
                tags=self.tags,
                logs=str(self.logs),
                refused=[id_ for id_, until in list(self.refused.items()) if until > now],
            )
            for claimed in claims:
                zygote = None
                with suppress(*UNAVAILABLE):  # a claim that cannot be released ends with its lease
                    zygote = self._find_zygote(claimed)
                if zygote:
                    self.running[claimed.attempt] = claimed
                    found.append((claimed, zygote))
            if not claims or self._is_pausing():
                return

    def _find_zygote(self, claimed: Claim) -> ZygoteProcess | None:
        """Return the zygote to run the claim, or release the claim and return None."""
        try:
            zygote = self.projects.find_zygote(claimed)
        except ProjectFailed as error:
            self._refuse(claimed, str(error), seconds=REFUSAL_DURATION_S)
            return None
        if isinstance(zygote, str):
            self._refuse(claimed, zygote)
            return None
        return zygote

    def _refuse(self, claimed: Claim, obstacle: str, *, seconds: float = math.inf) -> None:
        """Release a claim that no project here can run, and do not claim its like for *seconds*.

        When the ready zygotes change, all refusals are forgotten.
        """
        self.refused[claimed.refusal_id] = time.monotonic() + seconds
        self.report_error(f"{claimed.title}: {obstacle}")
        release(self.engine, claimed.attempt, error=f"refused by node {self.name}: {obstacle}")

    def _report_status(self, projects: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self.status_reported_at < STATUS_INTERVAL_S and self.error is None:
            return
        error, self.error = self.error, None
        self.status_reported_at = now
        nodes.record_poll(
            self.engine,
            self.name,
            running=len(self.running),
            projects=projects,
            state="draining" if self.is_draining else "up",
            error=error,
        )

    def database_name(self, name: str) -> str:
        """Return the database name of a project of any node. Raises NotFound."""
        try:
            return self.projects.database_name(name)
        except (NotFound, ProjectFailed):
            if has_project(self.engine, name):
                return name
            raise

    def report_error(self, error: str) -> None:
        """Log an error, and show it in the node's row."""
        log.error("{error}", error=error)
        self.error = error

    def projects_changed(self) -> None:
        """Look at the projects again: a version was added or deleted."""
        self.projects.refresh()
        self.refused.clear()

    def note_failed_start(self, error: str) -> None:
        """Pause after a spider process that did not start, longer after each one in a row."""
        if not self._is_pausing():
            self.failed_starts += 1
        pause = min(MAX_PAUSE_S, 0.5 * 2**self.failed_starts)
        self.pause_until = time.monotonic() + pause
        self.report_error(f"{error}; no claims for {pause:g} s")

    def lease_replies(self) -> dict[AttemptName, str]:
        """Return the database's reply for each attempt that runs here: see `leases.supervise`."""
        if not self.running:
            return {}
        with suppress(NotPossible):  # a node that drains no longer polls
            self.name_lease.acquire()
        return supervise(self.engine, list(self.running))

    def close_attempt(self, name: AttemptName, outcome: str, error: str) -> str:
        """Close an attempt whose process has ended without a report, and return its outcome.

        Raises the database's errors.
        """
        _, closed = attempt_outcome(self.engine, name)
        if closed is not None:
            return closed
        if outcome == "released":
            return release(self.engine, name, error=error)
        return fail(self.engine, name, error, outcome=outcome)

    def run_maintenance(self) -> None:
        """Run the maintenance of the queue, and once an hour delete old logs. Raises nothing."""
        try:
            tick(self.engine, self.lease)
            if time.monotonic() - self.logs_cleaned_at > LOG_CLEANUP_INTERVAL_S:
                self.logs_cleaned_at = time.monotonic()
                for log_file in logs_to_delete(self.settings):
                    log_file.unlink(missing_ok=True)
        except UNAVAILABLE as error:
            log.warn("the database is unavailable: {reason}", reason=reason(error))
        except Exception as error:  # the boundary of the thread: the next run tries again
            self.report_error(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Mark the node as stopped, and release its name."""
        try:
            nodes.record_poll(self.engine, self.name, running=0, projects={}, state="stopped")
        except UNAVAILABLE as error:
            log.warn("the database is unavailable: {reason}", reason=reason(error))
        self.name_lease.release()
        self._stack.close()


def node_of(config: Any) -> NodeService:
    """Return the node that `fleet.app.application` has started. Raises ConfigError otherwise."""
    node = getattr(config, "catlog_node", None)
    if not isinstance(node, NodeService):
        raise ConfigError(
            "scrapyd has no catlog node; set application = catlog_scrapy.fleet.app.application"
        )
    return node
