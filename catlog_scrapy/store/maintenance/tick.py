"""What every scheduler and worker does besides: reap, start what waits, publish."""

import logging

from sqlalchemy import Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.store.batch_errors import FAULTS
from catlog_scrapy.store.maintenance.reap import reap
from catlog_scrapy.store.publishing.publish import publish_next
from catlog_scrapy.store.queue.starting import start_waiting

logger = logging.getLogger(__name__)


def tick(engine: Engine, lease: float) -> int:
    """Reap expired leases, start waiting catalogs, publish loaded ones; how much there was to do.

    A publish that fails is noted on its catalog and tried again later.
    """
    done = reap(engine, lease=lease) + start_waiting(engine)
    try:
        while publish_next(engine):
            done += 1
    except (exc.DBAPIError, *FAULTS) as error:
        logger.warning("publishing failed: %s", reason(error))
    return done
