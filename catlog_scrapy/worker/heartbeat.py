"""Heartbeat of a process: lease renewal, time limits and detection of hung crawls."""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.store.queue import leases
from catlog_scrapy.worker.time_limits import TimeLimits

logger = logging.getLogger(__name__)

# Time after which a crawl that was told to stop counts as hung.
HUNG_AFTER_S = 15.0
# Time for releasing the other attempts of a process with a hung crawl.
RELEASE_TIMEOUT_S = 5.0
MAX_CHECK_INTERVAL_S = 0.5


class HeldAttempt:
    """Attempt of this process with its time limits and the time of its last lease renewal."""

    def __init__(self, attempt: Attempt) -> None:
        self.limits = TimeLimits(attempt)
        self.renewed_at = time.monotonic()


class Heartbeat(threading.Thread):
    """Thread that renews the leases of this process's attempts every third of a *lease* (seconds).

    A thread, not a task of the event loop: a spider that blocks the loop for a while must not lose
    its lease, and a spider that blocks the loop for ever must not keep it. The process of a hung
    crawl ends by *replace*, which does not return.

    Queries run in further threads, because a network that drops packets never answers. The
    heartbeat itself never waits for the database, so leases and limits end in time.
    """

    def __init__(self, engine: Engine, lease: float, replace: Callable[[], None]) -> None:
        super().__init__(name="catlog-heartbeat", daemon=True)
        self.engine = engine
        self.lease = lease
        self.replace = replace
        self.held: dict[Attempt, HeldAttempt] = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.renewal_began_at = -math.inf

    def add(self, attempt: Attempt) -> None:
        """Renew the lease of *attempt*, which was claimed just now."""
        with self.lock:
            self.held[attempt] = HeldAttempt(attempt)

    def remove(self, attempt: Attempt) -> None:
        """Stop renewing the lease of *attempt*."""
        with self.lock:
            self.held.pop(attempt, None)

    def end(self) -> None:
        """End the thread."""
        self.ended.set()

    def run(self) -> None:
        """Check the attempts until the end."""
        while not self.ended.wait(min(MAX_CHECK_INTERVAL_S, self.lease / 6)):
            try:
                self._check_attempts()
            except Exception:  # the boundary of the thread: no lease would end without it
                logger.exception("the heartbeat failed")

    def _check_attempts(self) -> None:
        with self.lock:
            attempts = {
                attempt: held for attempt, held in self.held.items() if attempt.outcome is None
            }
        now = time.monotonic()
        if attempts and now >= self.renewal_began_at + self.lease / 3:
            self.renewal_began_at = now
            self._start_thread("catlog-lease", self._renew, list(attempts), now)
        for attempt, held in attempts.items():
            # Without a renewal another worker may run the attempt by now.
            if now > held.renewed_at + self.lease:
                attempt.stop("lost", f"the database could not be reached for {self.lease:g} s")
            if exceeded := held.limits.exceeded():
                attempt.stop("timed_out", exceeded)
        hung = [attempt for attempt in attempts if now > attempt.stopped_at + HUNG_AFTER_S]
        if hung:
            for attempt in hung:
                logger.error("%s: it hung: %s", attempt.claim.title, attempt.stop_reason)
            # If the database does not answer, the leases expire; the process has to end anyway.
            self._start_thread("catlog-release", self._release, attempts, hung).join(
                RELEASE_TIMEOUT_S
            )
            self.replace()

    def _start_thread(
        self, name: str, work: Callable[..., None], *arguments: object
    ) -> threading.Thread:
        """Do *work* in a daemon thread, which does not delay the end of the process."""
        thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
        thread.start()
        return thread

    def _renew(self, attempts: Collection[Attempt], began_at: float) -> None:
        """Renew the leases of *attempts* and stop those that the store has stopped.

        The query may take long or never return. A renewed lease counts from *began_at*.
        """
        names = [attempt.claim.attempt for attempt in attempts]
        try:
            replies = leases.heartbeat(self.engine, names, lease=self.lease)
        except SQLAlchemyError as error:
            logger.warning("no heartbeat: %s", reason(error))
            return
        for attempt in attempts:
            reply = replies[attempt.claim.attempt]
            if reply != "go":
                attempt.stop(reply)
                continue
            with self.lock:
                if held := self.held.get(attempt):
                    held.renewed_at = max(held.renewed_at, began_at)

    def _release(self, attempts: Collection[Attempt], hung: Collection[Attempt]) -> None:
        """End *attempts* in the database; first those that did not hang, which others can run."""
        for attempt in sorted(attempts, key=lambda attempt: attempt in hung):
            attempt.stop("release", "another crawl of its process hung")
            note = f"; it hung: it had not stopped after {HUNG_AFTER_S:g} s"
            try:
                attempt.end_stopped(note if attempt in hung else "")
            except (CatlogError, SQLAlchemyError) as error:
                logger.warning("%s could not be released: %s", attempt.claim.title, error)
