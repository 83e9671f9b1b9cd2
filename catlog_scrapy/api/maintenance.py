"""A server tends as a worker does: with it alone, loads of external executors begin and end."""

import logging
import threading

from sqlalchemy import Engine

from catlog_scrapy.db.engine import UNAVAILABLE, make_engine, reason
from catlog_scrapy.store.maintenance.tick import tick

logger = logging.getLogger(__name__)

# Seconds, for a connection, and for what is being done at the end.
STOP_TIMEOUT_S = 10.0


class MaintenanceThread:
    """A thread that tends every *poll* seconds, and at once when something was done.

    On connections of its own to the database of *engine*: it takes longer than a request may.
    """

    def __init__(self, engine: Engine, *, lease: float, poll: float) -> None:
        url = engine.url.render_as_string(hide_password=False)
        self.engine = make_engine(url, connect_timeout=STOP_TIMEOUT_S)
        self.lease = lease
        self.poll = poll
        self.is_stopped = False
        self.wake = threading.Event()
        self.thread = threading.Thread()

    def start(self) -> None:
        """Begin; after an end again."""
        self.is_stopped = False
        self.thread = threading.Thread(target=self._run, name="catlog-maintenance", daemon=True)
        self.thread.start()

    def run_soon(self) -> None:
        """There is something to do, such as a catalog to publish."""
        self.wake.set()

    def stop(self) -> None:
        """Stop the thread, once it has done what it does; a long publish is left alone.

        That ends with the process: nothing of it becomes current, and it is tried again.
        """
        self.is_stopped = True
        self.wake.set()
        self.thread.join(STOP_TIMEOUT_S)
        self.engine.dispose()

    def _run(self) -> None:
        while not self.is_stopped:
            self.wake.clear()
            try:
                tick(self.engine, self.lease)
            except UNAVAILABLE as error:
                logger.warning("the database is away: %s", reason(error))
            except Exception:  # a thread has nobody to tell; without it nothing would be published
                logger.exception("tending failed")
            if not self.is_stopped:
                self.wake.wait(self.poll)
