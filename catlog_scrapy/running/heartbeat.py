"""One thread a process renews all leases, and notices what hangs."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from catlog_scrapy.attempt import Attempt
from catlog_scrapy.database import reason
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.store import claims
from catlog_scrapy.store.attempts import fail, release

logger = logging.getLogger(__name__)

# Seconds past its deadline after which a crawl that was told to stop is taken for hung.
HANGS_AFTER = 15.0


class Heartbeat(threading.Thread):
    """Renews the leases of this process's attempts every third of a *lease* (seconds).

    Not in the event loop: a spider that blocks the loop must not look dead at once, and one that
    blocks it for ever must not keep its lease. Of such a one the process is rid by *replace*,
    which does not return.
    """

    def __init__(self, engine: Engine, lease: float, replace: Callable[[], None]) -> None:
        super().__init__(name="catlog-heartbeat", daemon=True)
        self.engine = engine
        self.lease = lease
        self.replace = replace
        self.attempts: dict[Attempt, float] = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def add(self, attempt: Attempt) -> None:
        """Keep the lease of *attempt*, which was claimed just now."""
        with self.lock:
            self.attempts[attempt] = time.monotonic()

    def remove(self, attempt: Attempt) -> None:
        """Leave it to itself."""
        with self.lock:
            self.attempts.pop(attempt, None)

    def end(self) -> None:
        """Stop the thread."""
        self.ended.set()

    def run(self) -> None:
        """Beat until ended."""
        while not self.ended.wait(min(self.lease / 3, self._until_deadline())):
            try:
                self._beat()
                self._replace_if_hung()
            except Exception:  # a thread has nobody to tell; without it no lease would end
                logger.exception("the heartbeat failed")
                self._stop_expired()

    def _until_deadline(self) -> float:
        """Seconds until the next deadline (or the end of the grace after it), at least 0.1."""
        now = time.monotonic()
        with self.lock:
            ahead = [
                moment - now
                for attempt in self.attempts
                for moment in (attempt.deadline, attempt.deadline + HANGS_AFTER)
                if moment > now
            ]
        return max(0.1, min(ahead, default=self.lease) + 0.05)

    def _beat(self) -> None:
        with self.lock:
            held = {a.claim.attempt: a for a in self.attempts if a.outcome is None}
        if not held:
            return
        # The lease counts from before the question, whatever the answer takes.
        asked = time.monotonic()
        try:
            answers = claims.heartbeat(self.engine, list(held), lease=self.lease)
        except SQLAlchemyError as error:
            logger.warning("no heartbeat: %s", reason(error))
            self._stop_expired()
            return
        for name, answer in answers.items():
            if answer == "go":
                with self.lock:
                    if held[name] in self.attempts:
                        self.attempts[held[name]] = asked
            else:
                held[name].stop(answer)

    def _stop_expired(self) -> None:
        """Stop what could not be renewed for a whole lease: somebody else may run it by now."""
        limit = time.monotonic() - self.lease
        with self.lock:
            expired = [attempt for attempt, renewed in self.attempts.items() if renewed < limit]
        for attempt in expired:
            attempt.stop("lost")

    def _replace_if_hung(self) -> None:
        limit = time.monotonic() - HANGS_AFTER
        with self.lock:
            attempts = [attempt for attempt in self.attempts if attempt.outcome is None]
        hung = [attempt for attempt in attempts if attempt.deadline < limit]
        if not hung:
            return
        for attempt in attempts:
            # Without a database the lease ends it; the process has to go all the same.
            with contextlib.suppress(CatlogError, SQLAlchemyError):
                self._give_back(attempt, hung=attempt in hung)
        self.replace()

    def _give_back(self, attempt: Attempt, *, hung: bool) -> None:
        name = attempt.claim.attempt
        if not hung or attempt.stop_answer == "release":
            release(self.engine, name, attempt.report)
            return
        error = f"it hung: {HANGS_AFTER:g} s after it had to stop it had not"
        logger.error("%s: %s", attempt.claim.title, error)
        fail(self.engine, name, error, outcome="timed_out", report=attempt.report)
