"""Crawl of one attempt, from the making of its spider to its stored outcome."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scrapy import Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.crawl.attempt import Attempt, assign
from catlog_scrapy.crawl.permanent_errors import is_permanent
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.declarations import base_url_of, operation_record_types
from catlog_scrapy.declarations import spider_arguments as known_arguments
from catlog_scrapy.declarations.spiders import allowed_places
from catlog_scrapy.exceptions import AttemptLost, NotFound
from catlog_scrapy.pipelines.store import persist, persist_in_thread
from catlog_scrapy.redaction import read_secrets
from catlog_scrapy.scheduling.argument_urls import MisplacedUrl, url_mistakes
from catlog_scrapy.store.queue.attempts import fail
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.resuming import fresh_records, resume_cursor
from catlog_scrapy.store.reading.status import attempt_error
from catlog_scrapy.worker.attempt_logs import attempt_log
from catlog_scrapy.worker.isolation import run_isolated

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Time to store the end of an attempt without an open spider while the database is unavailable.
DATABASE_GRACE_S = 10.0
# Limit for reading an attempt's error, which is only shown.
ERROR_QUERY_TIMEOUT_S = 10.0


async def crawl_attempt(process: AsyncCrawlerProcess, settings: Settings, attempt: Attempt) -> None:
    """Run one attempt to its stored outcome, whatever happens to its crawl."""
    with attempt_log(attempt.report.log, settings):
        try:
            if attempt.claim.isolate:
                await run_isolated(attempt)
            else:
                await _crawl(process, settings, attempt)
        except Exception as error:  # the boundary to foreign code: a spider may raise anything
            logger.exception("the crawl did not start")
            attempt.report.is_permanent = is_permanent(error)
            attempt.record_error("starting the spider", error)
        if attempt.outcome is None:
            await asyncio.to_thread(_end_unopened, attempt)
        if attempt.outcome not in ("done", "lost"):
            # The slot must become free even if the network drops the query's packets.
            with contextlib.suppress(TimeoutError):
                query = asyncio.to_thread(_read_error, attempt)
                attempt.error = await asyncio.wait_for(query, ERROR_QUERY_TIMEOUT_S)


async def _crawl(process: AsyncCrawlerProcess, settings: Settings, attempt: Attempt) -> None:
    """Crawl in this process. Raises whatever the making of the spider raises."""
    claimed = attempt.claim
    _require_allowed_urls(claimed, settings)
    try:
        spidercls: type[Spider] = process.spider_loader.load(claimed.spider)
    except KeyError as error:
        raise NotFound(f"the project has no spider {claimed.spider!r}.") from error
    attempt.records = {
        record.kind: record for record in operation_record_types(spidercls, claimed.kinds)
    }
    crawler = process.create_crawler(spidercls)
    crawler.settings.update(claimed.settings, "cmdline")
    assign(crawler, attempt)
    known = known_arguments(spidercls)
    needed = [name for name in claimed.secrets if name in known]
    attempt.secrets = read_secrets(claimed.provider, needed)
    arguments = spider_arguments(claimed, settings, attempt.secrets)
    if claimed.mode == "incremental" and hasattr(spidercls, "cursor"):
        cursor = await _query(attempt, resume_cursor)
        attempt.report.resumed = bool(cursor)
        arguments.setdefault("cursor", cursor)
    if claimed.limits.get("refresh"):
        arguments["fresh"] = await _query(attempt, fresh_records)
    await crawler.crawl_async(**arguments)


def _require_allowed_urls(claimed: Claim, settings: Settings) -> None:
    """Raise MisplacedUrl for an argument that points where the operation may not read."""
    places = allowed_places(
        settings, claimed.provider, claimed.base_url, claimed.limits.get("hosts", ())
    )
    for name, mistake in url_mistakes(places, claimed.arguments).items():
        raise MisplacedUrl(f"the argument {name}: {mistake}")


async def _query(attempt: Attempt, query: Callable[[Engine, Claim], T]) -> T:
    """Return the result of *query*, however long the database is unavailable."""
    return await persist_in_thread(attempt, lambda: query(attempt.engine, attempt.claim))


def spider_arguments(
    claimed: Claim, settings: Settings, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """Return the spider's arguments, as with `-a`: base URL, arguments and secrets.

    A secret overrides an argument of the same name.
    """
    base_url = base_url_of(settings, claimed.provider, claimed.base_url)
    return {**({"base_url": base_url} if base_url else {}), **claimed.arguments, **secrets}


def _end_unopened(attempt: Attempt) -> None:
    """End an attempt whose spider never opened, or whose crawl ended without an outcome."""
    report = attempt.report
    error = report.errors[0] if report.errors else "the crawl ended without closing its spider"

    def end() -> str:
        if attempt.stop_code:
            return attempt.end_stopped()
        return fail(attempt.engine, attempt.claim.attempt, error, report=report)

    try:
        attempt.outcome = persist(attempt, end, grace_s=DATABASE_GRACE_S)
        attempt.error = error
    except AttemptLost as lost:
        attempt.outcome, attempt.error = "lost", str(lost)


def _read_error(attempt: Attempt) -> str | None:
    try:
        return attempt_error(attempt.engine, attempt.claim.attempt)
    except UNAVAILABLE as error:
        return reason(error)
