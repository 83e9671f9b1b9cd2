"""One thread a process renews all leases, keeps the time limits, and notices what hangs."""

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

# Seconds after which a crawl that was told to stop is taken for hung.
HUNG_AFTER_S = 15.0
# Seconds that a process which has to go may spend on giving back what it holds.
RELEASE_TIMEOUT_S = 5.0
# Seconds between two looks at leases and limits, at most.
MAX_CHECK_INTERVAL_S = 0.5


class HeldAttempt:
    """What the heartbeat knows of an attempt of this process: when its lease was last renewed."""

    def __init__(self, attempt: Attempt) -> None:
        self.limits = TimeLimits(attempt)
        self.renewed_at = time.monotonic()


class Heartbeat(threading.Thread):
    """Renews the leases of this process's attempts every third of a *lease* (seconds).

    Not in the event loop: a spider that blocks the loop must not look dead at once, and one that
    blocks it for ever must not keep its lease. Of such a one the process is rid by *replace*,
    which does not return.

    Nor does this thread itself ask the database anything: a network that swallows packets never
    answers, and a crawl whose lease or time is over has to stop all the same.
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
        """Keep the lease of *attempt*, which was claimed just now."""
        with self.lock:
            self.held[attempt] = HeldAttempt(attempt)

    def remove(self, attempt: Attempt) -> None:
        """Leave it to itself."""
        with self.lock:
            self.held.pop(attempt, None)

    def end(self) -> None:
        """Stop the thread."""
        self.ended.set()

    def run(self) -> None:
        """Look until ended."""
        while not self.ended.wait(min(MAX_CHECK_INTERVAL_S, self.lease / 6)):
            try:
                self._check_attempts()
            except Exception:  # a thread has nobody to tell; without it no lease would end
                logger.exception("the heartbeat failed")

    def _check_attempts(self) -> None:
        with self.lock:
            held = {attempt: it for attempt, it in self.held.items() if attempt.outcome is None}
        now = time.monotonic()
        if held and now >= self.renewal_began_at + self.lease / 3:
            self.renewal_began_at = now
            self._start_thread("catlog-lease", self._renew, list(held), now)
        for attempt, it in held.items():
            # Somebody else may run it by now.
            if now > it.renewed_at + self.lease:
                attempt.stop("lost", f"the database could not be asked for {self.lease:g} s")
            if exceeded := it.limits.exceeded():
                attempt.stop("timed_out", exceeded)
        hung = [attempt for attempt in held if now > attempt.stopped_at + HUNG_AFTER_S]
        if hung:
            for attempt in hung:
                logger.error("%s: it hung: %s", attempt.claim.title, attempt.stop_reason)
            # Without a database the leases end it; the process has to go all the same.
            self._start_thread("catlog-give-back", self._release, held, hung).join(
                RELEASE_TIMEOUT_S
            )
            self.replace()

    def _start_thread(
        self, name: str, work: Callable[..., None], *arguments: object
    ) -> threading.Thread:
        """Do *work* in a thread of its own, for which nobody waits when the process ends."""
        thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
        thread.start()
        return thread

    def _renew(self, attempts: Collection[Attempt], asked: float) -> None:
        """Ask what is to become of *attempts*, at *asked*; an answer may be late, or never come."""
        names = [attempt.claim.attempt for attempt in attempts]
        try:
            answers = leases.heartbeat(self.engine, names, lease=self.lease)
        except SQLAlchemyError as error:
            logger.warning("no heartbeat: %s", reason(error))
            return
        for attempt in attempts:
            answer = answers[attempt.claim.attempt]
            if answer != "go":
                attempt.stop(answer)
                continue
            with self.lock:
                if it := self.held.get(attempt):
                    # The lease counts from before the question, whatever the answer took.
                    it.renewed_at = max(it.renewed_at, asked)

    def _release(self, attempts: Collection[Attempt], hung: Collection[Attempt]) -> None:
        """End *attempts* in the database, those first that do no harm: they did not hang."""
        for attempt in sorted(attempts, key=lambda attempt: attempt in hung):
            attempt.stop("release", "another crawl of its process hung")
            note = f"; it hung: {HUNG_AFTER_S:g} s later it had not stopped"
            try:
                attempt.end_stopped(note if attempt in hung else "")
            except (CatlogError, SQLAlchemyError) as error:
                logger.warning("%s is not given back: %s", attempt.claim.title, error)
