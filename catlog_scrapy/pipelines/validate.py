"""Validation pipeline: an item becomes rows, or is rejected with reasons."""

from collections.abc import Sequence
from typing import Any

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.crawl.failed_item import raise_failure
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.records.validation import ItemValidator, Rejection, ValidatedItem, make_rejection
from catlog_scrapy.records.yields import Batch, Cursor
from catlog_scrapy.scheduling.cursor import CursorError, validate_cursor


class Rejected(DropItem):
    """Items that did not validate; raised by the pipelines, counted by OutcomeExtension.

    Scrapy neither logs a DropItem as an error nor passes the item on.
    """

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(rejections[0][1][0], log_level="DEBUG")
        self.rejections = rejections


class ValidatePipeline:
    """Pipeline that validates items against their record types.

    The types' validators get the spider as their context, so that a rule may depend on an argument.
    An item waits at the attempt's gate before its rows take up memory.
    """

    def __init__(self, attempt: Attempt, spider: Spider | None = None) -> None:
        self.attempt = attempt
        self.gate = attempt.gate
        self.validator = ItemValidator(attempt.records, spider)
        self.validator.secrets = attempt.secrets

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "ValidatePipeline":
        """Make the pipeline of a crawl's attempt."""
        return cls(running_attempt(crawler), crawler.spider)

    async def process_item(self, item: Any) -> ValidatedItem:
        """Validate *item*. Raises Rejected if the item has no valid record."""
        raise_failure()
        if not self.gate.is_open:
            await self.gate.wait()
        validated = self.validate(item)
        if validated.rejections and not validated.rows:
            raise Rejected(validated.rejections)
        return validated

    def validate(self, item: Any) -> ValidatedItem:
        """Return the rows and rejections of *item*."""
        validated = ValidatedItem(item)
        if isinstance(item, Batch):
            for part in item.items:
                self.validator.validate(part, item.record, validated)
        elif isinstance(item, Cursor):
            self._keep_cursor(item, validated)
        else:
            self.validator.validate(item, None, validated)
        return validated

    def _keep_cursor(self, cursor: Cursor, validated: ValidatedItem) -> None:
        claim = self.attempt.claim
        try:
            if claim.mode != "incremental":
                raise CursorError(
                    "the spider yields a cursor, but its operation is not incremental;"
                    ' declare mode = "incremental"'
                )
            self.validator.refuse_secrets(str(cursor.value))
            validated.cursor = validate_cursor(cursor.value, claim.limits.get("overlap"))
        except (CursorError, NotStorable) as error:
            validated.rejections.append(make_rejection(cursor, [str(error)]))
