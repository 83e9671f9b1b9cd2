"""Scrapy's log record of each scraped item, without the records that no handler prints."""

import logging
from typing import Any

from scrapy.core.scraper import logger as scraper_logger
from scrapy.crawler import Crawler
from scrapy.logformatter import LogFormatter
from scrapy.utils.log import logformatter_adapter


class ScrapedLog:
    """Log of one crawl's scraped items.

    Scrapy leaves its loggers at DEBUG and sets LOG_LEVEL on the handlers, so it makes a record for
    each item in vain. A log formatter with its own `scraped` is always asked.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler

    def install(self) -> None:
        """Let the crawl's log formatter omit records that no handler prints."""
        formatter: Any = self.crawler.logformatter
        scraped = formatter.scraped

        def scraped_if_printed(item: Any, response: Any, spider: Any) -> Any:
            return scraped(item, response, spider) if is_printed(logging.DEBUG) else None

        if not self._has_own_formatter():
            formatter.scraped = scraped_if_printed

    def is_needed(self) -> bool:
        """Return whether scraped items have to be logged at present."""
        return self._has_own_formatter() or is_printed(logging.DEBUG)

    def log(self, item: Any, response: Any) -> None:
        """Log *item* as Scrapy does."""
        spider = self.crawler.spider
        assert spider is not None
        message = self.crawler.logformatter.scraped(item, response, spider)
        if message is not None:
            extra = {"spider": spider, "item": item}
            scraper_logger.log(*logformatter_adapter(message), extra=extra)

    def _has_own_formatter(self) -> bool:
        return type(self.crawler.logformatter).scraped is not LogFormatter.scraped


def is_printed(level: int) -> bool:
    """Return whether a record of *level* from Scrapy's scraper reaches a handler or a filter."""
    if not scraper_logger.isEnabledFor(level):
        return False
    if scraper_logger.filters:
        return True
    logger: logging.Logger | None = scraper_logger
    while logger:
        for handler in logger.handlers:
            if handler.level <= level:
                return True
        logger = logger.parent if logger.propagate else None
    return False
