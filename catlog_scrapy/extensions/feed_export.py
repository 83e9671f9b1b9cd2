"""Feed exports of spiders that yield batches, cursors and removals besides records."""

from typing import Any

from scrapy import Spider
from scrapy.extensions import feedexport

from catlog_scrapy.records.yields import Batch, Cursor, Unchanged


class FeedExporter(feedexport.FeedExporter):
    """Feed exporter that writes the items of a Batch one by one.

    Yields that are no records, such as Removed, are left out: a feed has no form for them.
    """

    def item_scraped(self, item: Any, spider: Spider) -> None:
        """Export *item* or, of a Batch, each of its items."""
        if isinstance(item, Batch):
            for part in item.items:
                super().item_scraped(part, spider)
        elif not isinstance(item, Unchanged | Cursor):
            super().item_scraped(item, spider)
