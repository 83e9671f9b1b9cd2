"""Pruning by a scheduler: a round at a time, in small steps between its other work."""

import logging
import time
from collections.abc import Iterator

from scrapy.settings import Settings
from sqlalchemy import Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.store.batch_errors import FAULTS, is_outage
from catlog_scrapy.store.maintenance.prune import PruneCounts, prune_in_steps
from catlog_scrapy.store.maintenance.retention import Retention
from catlog_scrapy.worker.attempt_logs import logs_to_delete

logger = logging.getLogger(__name__)

# Pause between two rounds. A round takes long only when much has to go.
ROUND_INTERVAL_S = 600.0
# Time of one look, after which due schedules and loads have their turn.
MAX_STEP_S = 0.2


def retention_of(settings: Settings) -> Retention:
    """Return the times that *settings* keep results and catalogs."""
    return Retention(
        results=settings.getfloat("CATLOG_RESULTS_KEEP"),
        catalogs=settings.getfloat("CATLOG_CATALOGS_KEEP"),
    )


class Pruner:
    """Pruning of one scheduler. Several schedulers may prune at once: they skip locked rows."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.round: Iterator[None] = iter(())
        self.counts = PruneCounts()
        self.next_round_at = 0.0

    def step(self) -> None:
        """Prune for a moment, if a round is due or under way.

        A failed statement ends the round; the next round repeats it.
        """
        started = time.monotonic()
        if started >= self.next_round_at:
            self.next_round_at = started + ROUND_INTERVAL_S
            self.counts = PruneCounts()
            self.round = self._round()
        try:
            while next(self.round, self) is not self and time.monotonic() - started < MAX_STEP_S:
                pass
        except (exc.DBAPIError, *FAULTS) as error:
            if is_outage(error):
                raise
            logger.warning("pruning failed: %s", reason(error))

    def _round(self) -> Iterator[None]:
        yield from prune_in_steps(self.engine, retention_of(self.settings), self.counts)
        for log in logs_to_delete(self.settings):
            log.unlink(missing_ok=True)
        if self.counts != PruneCounts():
            logger.info("pruned: %s", self.counts)
