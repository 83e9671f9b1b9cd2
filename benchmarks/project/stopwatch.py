"""Stopwatch: measures a crawl from within its process."""

import json
import re
import time
from pathlib import Path

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured


class Stopwatch:
    """Extension that writes time and memory of the crawl to the file of the setting STOPWATCH.

    `engine_stopped` is sent after all handlers of `spider_closed`: catlog has stored the last row
    and completed the attempt.
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
        """Start the clock."""
        self.opened_at = time.time()
        self.started = time.perf_counter()

    def engine_stopped(self) -> None:
        """Stop the clock and write the file."""
        seen = {
            "seconds": time.perf_counter() - self.started,
            "opened_at": self.opened_at,
            "peak": peak_memory(),
        }
        self.path.write_text(json.dumps(seen))


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
