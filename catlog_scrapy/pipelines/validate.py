"""The first step: an item becomes rows, or is rejected with reasons."""

from collections.abc import Sequence
from typing import Any

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.records.validation import ItemValidator, Rejection, ValidatedItem, make_rejection
from catlog_scrapy.records.yields import Batch, Cursor
from catlog_scrapy.scheduling.cursor import CursorError, validate_cursor


class Rejected(DropItem):
    """Items that did not pass the check. Raised by ValidatePipeline, counted by the extension.

    A DropItem, so that Scrapy neither logs it as an error nor hands the item on.
    """

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(rejections[0][1][0], log_level="DEBUG")
        self.rejections = rejections


class ValidatePipeline:
    """Builds the record type of every item; what does not validate is rejected.

    Its validators get the spider as their context: a rule may depend on an argument. An item that
    comes while the store has no room waits here, before its rows take up memory.
    """

    def __init__(self, attempt: Attempt, spider: Spider | None = None) -> None:
        self.attempt = attempt
        self.gate = attempt.gate
        self.validator = ItemValidator(attempt.records, spider)
        self.validator.secrets = attempt.secrets

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "ValidatePipeline":
        return cls(running_attempt(crawler), crawler.spider)

    async def process_item(self, item: Any) -> ValidatedItem:
        """The item with its rows. Raises Rejected."""
        if not self.gate.is_open:
            await self.gate.wait()
        validated = ValidatedItem(item)
        if isinstance(item, Batch):
            for part in item.items:
                self.validator.validate(part, item.record, validated)
        elif isinstance(item, Cursor):
            self._note(item, validated)
        else:
            self.validator.validate(item, None, validated)
        if validated.rejections and not validated.rows:
            raise Rejected(validated.rejections)
        return validated

    def _note(self, cursor: Cursor, validated: ValidatedItem) -> None:
        claim = self.attempt.claim
        try:
            if claim.mode != "incremental":
                raise CursorError(
                    'a cursor, but the operation is not declared incremental: mode = "incremental"'
                )
            self.validator.refuse_secrets(str(cursor.value))
            self.attempt.report.cursor = validate_cursor(cursor.value, claim.limits.get("overlap"))
        except (CursorError, NotStorable) as error:
            validated.rejections.append(make_rejection(cursor, [str(error)]))
