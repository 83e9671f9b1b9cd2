"""Limit on the records that one load may remove."""

from collections.abc import Mapping

from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue.report import exceeds

# Share of the missing records that new drops of the project's pipelines must explain.
MIN_EXPLAINED_SHARE = 0.5
# Share of an operation's records that a snapshot may remove unless `tolerate.removed` says more.
DEFAULT_MAX_REMOVED_SHARE = 0.5


def explain_by_drops(missing: int, dropped: int, usually_dropped: int) -> bool:
    """Return whether the project's pipelines may have dropped the *missing* records of a load.

    *usually_dropped* counts the drops of the last load that removed records: a pipeline that drops
    the same items at each load explains nothing.
    """
    explained = dropped - usually_dropped
    return explained > 0 and missing > 0 and explained >= missing * MIN_EXPLAINED_SHARE


def refuse_too_many_removals(
    operation: str,
    tolerate: Mapping[str, float],
    *,
    removed: int,
    present: int,
    dropped: int,
    is_snapshot: bool,
) -> None:
    """Raise PublishRefused if a load has *removed* too many of the *present* records.

    *present* counts the records before the load, *dropped* the items that the project's pipelines
    dropped; *tolerate* says how many records the load may remove.
    """
    # Deletions that the source itself reports are not limited by default.
    default = DEFAULT_MAX_REMOVED_SHARE if is_snapshot else 1.0
    tolerated = tolerate.get("removed", default)
    if removed and exceeds(removed, present, tolerated):
        drops = f"; its pipelines dropped {counted(dropped, 'item')}" if dropped else ""
        raise PublishRefused(
            f"{operation} would remove {removed} of {counted(present, 'record')}, tolerated"
            f" {tolerated}{drops}. Look at what the load received: a log-in page, an error page or"
            " changed markup makes records go missing, too. Only if the source has deleted them,"
            " raise tolerate.removed, run scrapy apply and scrapy retry."
        )
