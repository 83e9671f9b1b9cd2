"""What the parts of a node share: its database, its name, its projects."""

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
from catlog_scrapy.config import unknown_names
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import CatlogError, NotFound
from catlog_scrapy.fleet.projects import Projects
from catlog_scrapy.fleet.zygotes import ProjectFailed, ZygoteProcess
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

# Seconds between two looks for logs that are too old, or too many.
LOG_CLEANUP_INTERVAL_S = 3600.0
# Seconds between two lines about itself that a node writes.
STATUS_INTERVAL_S = 1.0
# Seconds that what a broken project would run is left to others, before it is looked at again.
REFUSAL_DURATION_S = 30.0
# The longest pause, in seconds, after spiders could not be started.
MAX_PAUSE_S = 30.0


class NodeService:
    """A scrapyd of the fleet. Its methods ask the database, and are called in threads.

    *host*, *port* and *slots* are its own; it is called by CATLOG_NODE and the port. Raises
    CatlogError where it cannot be a node.
    """

    def __init__(self, config: Config, *, host: str, port: int, slots: int) -> None:
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
        self.engine = self._stack.enter_context(project_database(settings))
        environment = {
            "CATLOG_DATABASE_URL": self.engine.url.render_as_string(hide_password=False),
            "CATLOG_HOME": str(self.home),
        }
        self.projects = Projects(config, self.home, environment)
        self.hold = nodes.NodeNameLock(self.engine, self.name)

    def start(self) -> None:
        """Become the node of its name, and end what a former one left."""
        nodes.register(
            self.engine,
            self.name,
            url=self.url,
            pid=os.getpid(),
            version=version("catlog-scrapy"),
            slots=self.slots,
            poll=self.poll_interval,
        )
        left = end_orphaned_attempts(self.engine, self.name)
        if left:
            log.info("{left} attempts of this node's former life are lost", left=left)

    def hold_name(self) -> None:
        """Be the only node of its name. Raises NotPossible where there is another.

        Not at once: a server may need a moment to notice that a killed node is gone.
        """
        end = time.monotonic() + 5
        while True:
            try:
                self.hold.acquire()
                return
            except CatlogError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def poll(self, free: int) -> list[tuple[Claim, ZygoteProcess]]:
        """Claim as many as there are *free* slots, with who is to run them. Raises nothing."""
        found: list[tuple[Claim, ZygoteProcess]] = []
        try:
            self.hold.acquire()
            projects = self.projects.status()  # which starts what is to be started
            if not self._is_pausing() and not self.projects.is_importing():
                self._claim(free, found)
            self._report_status(projects)
        except UNAVAILABLE as error:
            self.report_error(f"the database is away: {reason(error)}")
        except Exception as error:  # the poller of a node must live, whatever happens
            self.report_error(f"{type(error).__name__}: {error}")
        return found

    def _is_pausing(self) -> bool:
        return self.is_draining or time.monotonic() < self.pause_until

    def _claim(self, free: int, found: list[tuple[Claim, ZygoteProcess]]) -> None:
        """Add to *found* what is claimed: it is there whatever happens after it."""
        ready_zygotes = self.projects.ready_zygotes()
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
                logs=str(self.logs),
                refused=[id_ for id_, until in list(self.refused.items()) if until > now],
            )
            for claimed in claims:
                zygote = None
                with suppress(*UNAVAILABLE):  # what cannot be given back is lost with its lease
                    zygote = self._find_zygote(claimed)
                if zygote:
                    self.running[claimed.attempt] = claimed
                    found.append((claimed, zygote))
            if not claims or self._is_pausing():
                return

    def _find_zygote(self, claimed: Claim) -> ZygoteProcess | None:
        """Who is to run what was claimed; None where it was given back."""
        try:
            zygote = self.projects.find(claimed)
        except ProjectFailed as error:
            self._refuse(claimed, str(error), seconds=REFUSAL_DURATION_S)
            return None
        if isinstance(zygote, str):
            self._refuse(claimed, zygote)
            return None
        return zygote

    def _refuse(self, claimed: Claim, refusal: str, *, seconds: float = math.inf) -> None:
        """Give back what no project here can run, and leave its like to others for *seconds*.

        Whenever a project has something new to offer, all of it is looked at again.
        """
        self.refused[claimed.refusal_id] = time.monotonic() + seconds
        self.report_error(f"{claimed.title}: {refusal}")
        release(self.engine, claimed.attempt, error=f"refused by node {self.name}: {refusal}")

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

    def project(self, name: str) -> str:
        """What the database calls a project, known here or not. Raises NotFound."""
        try:
            return self.projects.name_in_database(name)
        except (NotFound, ProjectFailed):
            if has_project(self.engine, name):
                return name
            raise

    def report_error(self, error: str) -> None:
        """Note what went wrong, for the log and for whoever looks at the nodes."""
        log.error("{error}", error=error)
        self.error = error

    def projects_changed(self) -> None:
        """A version was added or deleted."""
        self.projects.refresh()
        self.refused.clear()

    def note_failed_start(self, why: str) -> None:
        """A spider could not be started: pause, longer each time in a row."""
        if not self._is_pausing():
            self.failed_starts += 1
        pause = min(MAX_PAUSE_S, 0.5 * 2**self.failed_starts)
        self.pause_until = time.monotonic() + pause
        self.report_error(f"{why}; claiming nothing for {pause:g} s")

    def lease_replies(self) -> dict[AttemptName, str]:
        """What the database says of what runs here: see `leases.supervise`."""
        return supervise(self.engine, list(self.running)) if self.running else {}

    def close_attempt(self, name: AttemptName, outcome: str, error: str) -> str:
        """Write down how an attempt's process ended, unless the attempt was closed before it.

        Its outcome. Raises what the database raises.
        """
        _, closed = attempt_outcome(self.engine, name)
        if closed is not None:
            return closed
        if outcome == "released":
            return release(self.engine, name, error=error)
        return fail(self.engine, name, error, outcome=outcome)

    def run_maintenance(self) -> None:
        """Reap, start what waits, publish; and once an hour, delete old logs. Raises nothing."""
        try:
            tick(self.engine, self.lease)
            if time.monotonic() - self.logs_cleaned_at > LOG_CLEANUP_INTERVAL_S:
                self.logs_cleaned_at = time.monotonic()
                for log_file in logs_to_delete(self.settings):
                    log_file.unlink(missing_ok=True)
        except UNAVAILABLE as error:
            log.warn("the database is away: {why}", why=reason(error))
        except Exception as error:  # as above: it is tried again
            self.report_error(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Be no node any more."""
        try:
            nodes.record_poll(self.engine, self.name, running=0, projects={}, state="stopped")
        except UNAVAILABLE as error:
            log.warn("the database is away: {why}", why=reason(error))
        self.hold.release()
        self._stack.close()


def node_of(config: Any) -> NodeService:
    """The node that `fleet.app.application` has put up. Raises ConfigError without one."""
    node = getattr(config, "catlog_node", None)
    if not isinstance(node, NodeService):
        raise ConfigError(
            "catlog's components need application = catlog_scrapy.fleet.app.application"
        )
    return node
