"""Limit on the results of one load whose keys came before."""

from collections.abc import Mapping

from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue.report import exceeds


def refuse_too_many_duplicates(
    operation: str, tolerate: Mapping[str, float], *, duplicates: int, received: int
) -> None:
    """Raise PublishRefused if more results than `tolerate.duplicates` had a key that came before.

    *received* counts all results. Without a declared tolerance any number is tolerated.
    """
    tolerated = tolerate.get("duplicates")
    if tolerated is None or not exceeds(duplicates, received, tolerated):
        return
    raise PublishRefused(
        f"{operation} brought {duplicates} of {counted(received, 'result')} with a key that the"
        f" load had already, tolerated {tolerated}. Check that the key tells records apart; if the"
        " source repeats them, raise tolerate.duplicates, run scrapy apply and scrapy retry."
    )
