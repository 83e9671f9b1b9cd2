"""Maintenance tick of schedulers and workers: clock, reap, start, publish, partitions."""

import logging

from sqlalchemy import Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.store.batch_errors import FAULTS
from catlog_scrapy.store.maintenance.clock import check_clock
from catlog_scrapy.store.maintenance.reap import reap
from catlog_scrapy.store.publishing.publish import publish_next
from catlog_scrapy.store.queue.result_partitions import require_partitions
from catlog_scrapy.store.queue.starting import start_waiting

logger = logging.getLogger(__name__)


def tick(engine: Engine, lease: float) -> int:
    """Reap expired leases, start waiting catalogs, publish complete ones; return their number.

    Times that a clock ahead has set are brought back, and partitions of results are made ahead. The
    error of a failed publish is stored with its catalog, and the publish is retried later.
    """
    check_clock(engine, lease=lease)
    done = reap(engine, lease=lease) + start_waiting(engine)
    try:
        while publish_next(engine):
            done += 1
    except (exc.DBAPIError, *FAULTS) as error:
        logger.warning("publishing failed: %s", reason(error))
    require_partitions(engine)
    return done
