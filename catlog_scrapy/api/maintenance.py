"""Maintenance by the server.

A server without workers starts and publishes the loads of external executors by itself.
"""

import logging
import threading

from sqlalchemy import Engine

from catlog_scrapy.db.engine import UNAVAILABLE, make_engine, reason
from catlog_scrapy.db.refusals import refusal_of
from catlog_scrapy.store.maintenance.tick import tick

logger = logging.getLogger(__name__)

# Longest time for a connection, and for the current tick when the server stops.
STOP_TIMEOUT_S = 10.0


class MaintenanceThread:
    """Thread that runs maintenance every *poll* seconds, and at once after `run_soon`.

    The thread has an engine of its own, because a tick may take longer than a request may.
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
        """Start the thread, also after `stop`."""
        self.is_stopped = False
        self.thread = threading.Thread(target=self._run, name="catlog-maintenance", daemon=True)
        self.thread.start()

    def run_soon(self) -> None:
        """Wake the thread, for example to publish a catalog."""
        self.wake.set()

    def stop(self) -> None:
        """Stop the thread after its current tick.

        A longer publish ends with the process; its transaction rolls back, and the next tick of any
        process repeats it.
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
                logger.warning("the database is unavailable: %s", reason(error))
            except Exception as error:  # the top of a thread; without it nothing is published
                if refused := refusal_of(error):
                    logger.error("maintenance is not possible: %s", refused)
                else:
                    logger.exception("maintenance failed")
            if not self.is_stopped:
                self.wake.wait(self.poll)
