"""Stopwatch: measures a crawl from within its process."""

import atexit
import json
import re
from dataclasses import asdict
from pathlib import Path

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured

from benchmarks.measuring import Cost, Meter


class Stopwatch:
    """Extension that writes the crawl's costs to the file of the setting STOPWATCH.

    The costs are those from `spider_opened` to `engine_stopped`, and to the end of the process,
    which has published the catalog by then. `engine_stopped` is sent after all handlers of
    `spider_closed`: catlog has stored the last row and completed the attempt. POSTMASTER is the
    process id of the PostgreSQL server.
    """

    def __init__(self, path: str, postmaster: int) -> None:
        self.path = Path(path)
        self.meter = Meter(postmaster)
        self.opened = self.stopped = self.meter.read()
        self.peak = 0.0

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "Stopwatch":
        if not crawler.settings["STOPWATCH"]:
            raise NotConfigured
        watch = cls(crawler.settings["STOPWATCH"], crawler.settings.getint("POSTMASTER"))
        crawler.signals.connect(watch.spider_opened, signals.spider_opened)
        crawler.signals.connect(watch.engine_stopped, signals.engine_stopped)
        return watch

    def spider_opened(self) -> None:
        """Start the clock."""
        self.opened = self.meter.read()

    def engine_stopped(self) -> None:
        """Stop the first clock, and let the second stop at the end of the process."""
        self.stopped = self.meter.read()
        self.peak = peak_memory()
        atexit.register(self.write)

    def write(self) -> None:
        """Write the file."""
        costs: dict[str, Cost] = {
            "crawl": self.stopped - self.opened,
            "load": self.meter.read() - self.opened,
        }
        seen = {name: asdict(cost) for name, cost in costs.items()} | {"peak": self.peak}
        self.path.write_text(json.dumps(seen))


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
