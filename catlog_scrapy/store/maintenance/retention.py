"""Retention: times for which results and catalogs are kept."""

import datetime as dt
from dataclasses import dataclass

from catlog_scrapy.config import DEFAULTS

NO_TIME, DAY = dt.timedelta(0), dt.timedelta(days=1)
# With the longest `keep`, results wait so long for the drop of their partition before their rows
# are deleted one by one.
DROP_GRACE = 2 * DAY
# Pruning looks at each ended catalog at least this often, so that a shorter `keep` takes effect.
MAX_PAUSE = 7 * DAY
# The newest catalogs of each scheme's version that stay, for each state.
LATEST_CATALOGS = 10
# Longest time that can be added to every date, 300 years.
MAX_KEEP_S = 1e10


@dataclass(frozen=True)
class Retention:
    """Times, in seconds, for which ended catalogs and their results are kept.

    `results` applies to the operations without a `keep` of their own.
    """

    results: float = DEFAULTS["CATLOG_RESULTS_KEEP"]
    catalogs: float = DEFAULTS["CATLOG_CATALOGS_KEEP"]


def seconds(keep: float) -> dt.timedelta:
    """Return *keep* as a duration that can be added to a date."""
    return dt.timedelta(seconds=min(keep, MAX_KEEP_S))
