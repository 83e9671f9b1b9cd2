"""Measures a crawl from within its process."""

import json
import re
import time
from pathlib import Path

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured


class Stopwatch:
    """Writes how long the crawl took, and how much memory, to the file of the setting STOPWATCH.

    `engine_stopped` is sent when all that waits for `spider_closed` has ended: catlog has stored
    the last row then, and has said that the attempt is done.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.opened_at = time.time()
        self.started = time.perf_counter()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "Stopwatch":
        if not crawler.settings["STOPWATCH"]:
            raise NotConfigured
        watch = cls(crawler.settings["STOPWATCH"])
        crawler.signals.connect(watch.spider_opened, signals.spider_opened)
        crawler.signals.connect(watch.engine_stopped, signals.engine_stopped)
        return watch

    def spider_opened(self) -> None:
        """Start."""
        self.opened_at = time.time()
        self.started = time.perf_counter()

    def engine_stopped(self) -> None:
        """Stop, and write it down."""
        seen = {
            "seconds": time.perf_counter() - self.started,
            "opened_at": self.opened_at,
            "peak": peak_memory(),
        }
        self.path.write_text(json.dumps(seen))


def peak_memory() -> float:
    """The largest resident memory that this process has had, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
