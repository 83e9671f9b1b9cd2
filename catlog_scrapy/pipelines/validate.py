"""The first step: an item becomes rows, or is rejected with reasons."""

from collections.abc import Sequence
from typing import Any

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.records.validation import Checked, Checker, Rejection, rejection
from catlog_scrapy.records.yields import Batch, Cursor
from catlog_scrapy.scheduling.cursor import CursorError, check_cursor


class Rejected(DropItem):
    """Items that did not pass the check. Raised by CheckPipeline, counted by the extension.

    A DropItem, so that Scrapy neither logs it as an error nor hands the item on.
    """

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(rejections[0][1][0], log_level="DEBUG")
        self.rejections = rejections


class CheckPipeline:
    """Builds the record type of every item; what does not validate is rejected.

    Its validators get the spider as their context: a rule may depend on an argument. An item that
    comes while the store has no room waits here, before its rows take up memory.
    """

    def __init__(self, attempt: Attempt, spider: Spider | None = None) -> None:
        self.attempt = attempt
        self.gate = attempt.gate
        self.checker = Checker(attempt.records, spider)
        self.checker.secrets = attempt.secrets

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CheckPipeline":
        return cls(running_attempt(crawler), crawler.spider)

    async def process_item(self, item: Any) -> Checked:
        """The item with its rows. Raises Rejected."""
        if not self.gate.is_open:
            await self.gate.wait()
        checked = Checked(item)
        if isinstance(item, Batch):
            for part in item.items:
                self.checker.check(part, item.record, checked)
        elif isinstance(item, Cursor):
            self._note(item, checked)
        else:
            self.checker.check(item, None, checked)
        if checked.rejections and not checked.rows:
            raise Rejected(checked.rejections)
        return checked

    def _note(self, cursor: Cursor, checked: Checked) -> None:
        claim = self.attempt.claim
        try:
            if claim.mode != "incremental":
                raise CursorError(
                    'a cursor, but the operation is not declared incremental: mode = "incremental"'
                )
            self.checker.refuse_secrets(str(cursor.value))
            self.attempt.report.cursor = check_cursor(cursor.value, claim.limits.get("overlap"))
        except (CursorError, NotStorable) as error:
            checked.rejections.append(rejection(cursor, [str(error)]))
