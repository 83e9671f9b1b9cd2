"""Scrapy's own code that catlog replaces, or on whose inside it relies."""

import hashlib
import inspect

import pytest
import scrapy
from scrapy.core.engine import ExecutionEngine
from scrapy.core.scraper import Scraper
from scrapy.core.spidermw import SpiderMiddlewareManager
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.extensions.corestats import CoreStats
from scrapy.logformatter import LogFormatter
from scrapy.spidermiddlewares.base import BaseSpiderMiddleware
from scrapy.spidermiddlewares.depth import DepthMiddleware
from scrapy.utils.asyncio import _parallel_asyncio

# Most are of the fast path (pipelines/fast_path.py), which does what these methods do for a stored
# item, or is called by them. If one has changed, read it, adapt catlog, and enter the new digest.
DIGESTS = {
    Scraper._scrape: "72f0901d7c0dbe07",
    Scraper.call_spider_async: "eed6f753b240d1a9",
    Scraper.handle_spider_output_async: "194d54885f022012",
    Scraper._process_spidermw_output_async: "94488bf929eb2348",
    Scraper._start_itemproc_nowait_async: "dbb34603f9a67aa9",
    Scraper.start_itemproc_async: "7c63d9dcc74a8f5a",
    SpiderMiddlewareManager.scrape_response_async: "aef51d7ee01ec592",
    BaseSpiderMiddleware.process_spider_output_async: "c553d4200980e13f",
    BaseSpiderMiddleware._get_processed: "0464d177b2cc4278",
    BaseSpiderMiddleware.get_processed_item: "3edf44947d955969",
    DepthMiddleware.process_spider_output_async: "1ea1fd95495fe1c7",
    ExecutionEngine._process_start_next: "c3d1877cbaecdd7f",
    CoreStats.item_scraped: "f06060a8804ef882",
    LogFormatter.scraped: "d2ee1d4c278cbe29",
    # In its place, the fast path starts a task only for an item that needs one.
    _parallel_asyncio: "d05a3a6213124208",
    # crawl/given_up_requests.py reads its arguments when it counts a request that it gives up.
    get_retry_request: "1ad738fc3bfa9b74",
    # middlewares/robots.py extends them.
    RobotsTxtMiddleware.robot_parser: "4e961c394befa0fc",
    RobotsTxtMiddleware._parse_robots: "7d8641e3b334d6ef",
}


@pytest.mark.parametrize("method", DIGESTS, ids=lambda method: method.__qualname__)
def test_scrapys_code_is_the_one_that_catlog_was_written_for(method: object) -> None:
    source = inspect.getsource(method)  # type: ignore[arg-type]
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == DIGESTS[method], (
        f"Scrapy {scrapy.__version__}:\n{source}"
    )
