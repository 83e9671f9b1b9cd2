"""What every scheduler and worker does besides: reap, start what waits, publish."""

import logging

from sqlalchemy import Engine, exc

from catlog_scrapy.database import reason
from catlog_scrapy.store.catalogs import start_waiting
from catlog_scrapy.store.claims import reap
from catlog_scrapy.store.each import FAULTS
from catlog_scrapy.store.publishing import publish_next

logger = logging.getLogger(__name__)


def tend(engine: Engine, lease: float) -> int:
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
