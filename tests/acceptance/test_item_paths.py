"""Fast path and Scrapy's own path of items: equal rows, counts and outcomes.

Two projects have the same spiders. In one of them a listener to `item_scraped` keeps all items on
Scrapy's path. One worker runs all cases of a project; each test compares one case.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.demo.pictures import picture
from tests.support.postgres import Postgres
from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import rows, until

HEADER = """
from typing import Annotated, Any

from catlog_scrapy.records import (
    Batch, Cursor, FilesOf, ImagesOf, Record, Removed, Unchanged
)
from pydantic import field_validator
from scrapy import Request, Spider, signals


class {name}(Record, key="id", view="{view}"):
    id: int
    text: str = ""
    words: list[str] = []

    @field_validator("text")
    @classmethod
    def allow(cls, text):
        if text == "raise":
            raise RuntimeError("in a validator")
        return text


class Pictured(Record, key="id", view="{view}_pictures"):
    id: int
    image_url: str | None = None
    image: Annotated[str | None, ImagesOf("image_url")] = None


class Base(Spider):
    record = {name}
    base_url: str = ""

    async def start(self):
        yield Request(self.base_url + "/page")

"""


@dataclass
class Case:
    """Spider (the body of its class), and the items that Scrapy's pipelines process.

    `order` are the ids of the stored rows in the order in which the fast path stores them.
    """

    spider: str
    order: list[int] | None = None
    pipelined: int = 0
    declared: str = ""
    outcome: str = "done"


CASES = {
    "from_a_callback": Case(
        """
    def parse(self, response):
        for n in range(300):
            yield {"id": n}
        yield Request(self.base_url + "/other", callback=self.more)

    def more(self, response):
        for n in range(300, 500):
            yield {"id": n}
        """,
        order=list(range(500)),
    ),
    "from_an_async_callback": Case(
        """
    async def parse(self, response):
        import asyncio

        for n in range(300):
            yield {"id": n}
            if n % 100 == 0:
                await asyncio.sleep(0)
        """,
        order=list(range(300)),
    ),
    "from_start": Case(
        """
    async def start(self):
        for n in range(300):
            yield {"id": n}
        yield Request(self.base_url + "/page")
        for n in range(300, 500):
            yield {"id": n}

    def parse(self, response):
        yield None
        """,
        order=list(range(500)),
    ),
    "from_an_errback": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/missing", errback=self.missed)

    def missed(self, failure):
        yield {"id": 1}
        """,
        order=[1],
    ),
    "one_key_many_times": Case(
        """
    def parse(self, response):
        for n in range(300):
            yield {"id": 7, "text": str(n)}
            yield Batch([{"id": 7, "text": f"{n} in a batch"}, {"id": 7, "text": f"last {n}"}])
        """,
        order=[7] * 900,
    ),
    "rejected_items": Case(
        """
    def parse(self, response):
        for n in range(30):
            yield {"id": n if n % 3 else None}
        yield 5
        yield {"id": 30, "colour": "red"}
        """,
        order=[n for n in range(30) if n % 3],
        pipelined=12,
        declared="tolerate = { rejected = 20 }",
    ),
    "more_rejected_items_than_tolerated": Case(
        """
    def parse(self, response):
        for n in range(30):
            yield {"id": n if n % 3 else None}
        """,
        pipelined=10,
        outcome="incomplete",
    ),
    "batches": Case(
        """
    def parse(self, response):
        yield Batch([{"id": n} for n in range(10)])
        yield Batch([{"id": n if n % 2 else None} for n in range(10, 20)])
        yield {"id": 20}
        yield Batch([{"id": None}, {"id": "x"}])
        yield Batch([])
        """,
        order=[*range(10), *range(11, 20, 2), 20],
        pipelined=2,
        declared="tolerate = { rejected = 20 }",
    ),
    "cursors_and_marks": Case(
        """
    cursor: str = ""

    def parse(self, response):
        yield {"id": 1}
        yield Cursor("2026-01-01")
        yield Removed(2)
        yield Unchanged(1)
        yield Unchanged("x")
        yield Cursor("2026-01-02")
        """,
        order=[1, 2, 1],
        pipelined=1,
        declared='mode = "incremental"\ntolerate = { rejected = 20 }',
    ),
    "a_cursor_of_a_snapshot": Case(
        """
    def parse(self, response):
        yield {"id": 1}
        yield Cursor("2026-01-01")
        """,
        order=[1],
        pipelined=1,
        outcome="incomplete",
    ),
    "an_exception_in_a_callback": Case(
        """
    def parse(self, response):
        for n in range(30):
            yield {"id": n}
        raise ZeroDivisionError("in a callback")
        """,
        outcome="failed",
    ),
    "an_exception_in_an_async_callback": Case(
        """
    async def parse(self, response):
        for n in range(30):
            yield {"id": n}
        raise ZeroDivisionError("in a callback")
        """,
        outcome="failed",
    ),
    "an_exception_in_start": Case(
        """
    async def start(self):
        for n in range(30):
            yield {"id": n}
        raise ZeroDivisionError("in start()")
        """,
        outcome="failed",
    ),
    "a_closed_spider": Case(
        """
    def parse(self, response):
        from scrapy.exceptions import CloseSpider

        yield {"id": 1}
        raise CloseSpider("enough")
        """,
        outcome="failed",
    ),
    "an_exception_in_a_validator": Case(
        """
    def parse(self, response):
        yield {"id": 1}
        yield {"id": 2, "text": "raise"}
        yield {"id": 3}
        """,
        pipelined=1,
        outcome="failed",
    ),
    "an_exception_in_an_iterator_of_an_item": Case(
        """
    def parse(self, response):
        def words():
            yield "a"
            raise LookupError("in a value")

        yield {"id": 1, "words": words()}
        """,
        pipelined=1,
        outcome="incomplete",
    ),
    "an_item_count": Case(
        """
    custom_settings = {"CLOSESPIDER_ITEMCOUNT": 5}

    def parse(self, response):
        for n in range(30):
            yield {"id": n}
        """,
        pipelined=30,
        outcome="failed",
    ),
    "a_listener_that_comes_late": Case(
        """
    def parse(self, response):
        for n in range(10):
            if n == 4:
                self.crawler.signals.connect(self.scraped, signals.item_scraped)
            yield {"id": n}

    def scraped(self, item):
        pass
        """,
        pipelined=6,
    ),
    "a_listener_to_any_signal": Case(
        """
    def parse(self, response):
        from pydispatch import dispatcher

        dispatcher.connect(self.heard, dispatcher.Any, sender=self.crawler)
        for n in range(10):
            yield {"id": n}

    def heard(self, signal):
        if signal is signals.item_scraped:
            self.crawler.stats.inc_value("seen_by_the_listener")
        """,
        pipelined=10,
    ),
    "a_pipeline_that_drops": Case(
        """
    custom_settings = {"ITEM_PIPELINES": {"shop.parts.Odd": 1}}

    def parse(self, response):
        for n in range(10):
            yield {"id": n}
        """,
        pipelined=10,
    ),
    "a_spider_middleware_that_changes_items": Case(
        """
    custom_settings = {"SPIDER_MIDDLEWARES": {"shop.parts.Numbered": 1}}

    def parse(self, response):
        for n in range(10):
            yield {"id": n}
        raise LookupError("answered by the middleware")
        """,
        order=[*range(100, 110), 1000],
        outcome="failed",
    ),
    "a_log_formatter_of_the_project": Case(
        """
    custom_settings = {"LOG_FORMATTER": "shop.parts.Formatter"}

    def parse(self, response):
        for n in range(10):
            yield {"id": n}
        """,
        order=list(range(10)),
    ),
    "records_with_images": Case(
        """
    record = Pictured

    def parse(self, response):
        for n in range(20):
            yield {"id": n, "image_url": self.base_url + "/a.png" if n % 10 == 0 else None}
        yield Batch([{"id": 20}, {"id": 21, "image_url": self.base_url + "/a.png"}])
        yield Batch([{"id": 22}, {"id": 23}])
        """,
        pipelined=3,
    ),
    "more_images_than_concurrent_items": Case(
        """
    record = Pictured
    custom_settings = {"CONCURRENT_ITEMS": 2}

    def parse(self, response):
        for n in range(9):
            assert self.crawler.engine.scraper.slot.itemproc_size <= 2
            yield {"id": n, "image_url": self.base_url + "/b.png"}
        """,
        pipelined=9,
    ),
}

PARTS = """
from scrapy import signals
from scrapy.exceptions import DropItem
from scrapy.logformatter import LogFormatter


class Odd:
    def process_item(self, item):
        if item["id"] % 2:
            raise DropItem("odd")
        return item


class Numbered:
    async def process_spider_output_async(self, response, result):
        async for item in result:
            yield {"id": item["id"] + 100}

    def process_spider_output(self, response, result):
        for item in result:
            yield {"id": item["id"] + 100}

    def process_spider_exception(self, response, exception):
        return [{"id": 1000}]


class Formatter(LogFormatter):
    def scraped(self, item, response, spider):
        spider.crawler.stats.inc_value(f"seen_by_the_formatter/{response.status}")
        return None


class PipelineCounter:
    def __init__(self, crawler):
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler):
        counter = cls(crawler)
        crawler.signals.connect(counter.opened, signals.spider_opened)
        return counter

    def opened(self):
        itemproc = self.crawler.engine.scraper.itemproc
        process = itemproc.process_item_async

        async def counted(item):
            self.crawler.stats.inc_value("pipelined")
            return await process(item)

        itemproc.process_item_async = counted


class Listener:
    @classmethod
    def from_crawler(cls, crawler):
        listener = cls()
        crawler.signals.connect(listener.scraped, signals.item_scraped)
        return listener

    def scraped(self, item):
        pass
"""

# Statistics that both paths must share.
COMPARED = (
    "item_",
    "spider_exceptions",
    "response_received_count",
    "finish_reason",
    "seen_by_the_",
    "media/",
)


@pytest.fixture(scope="module")
def fast(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases on the fast path and return the database."""
    with postgres.clone() as url:
        yield from run_all(tmp_path_factory.mktemp("fast"), url, "")


@pytest.fixture(scope="module")
def slow(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases on Scrapy's path and return the database."""
    with postgres.clone() as url:
        yield from run_all(tmp_path_factory.mktemp("slow"), url, '"shop.parts.Listener": 2')


def run_all(folder: Path, url: str, listener: str) -> Iterator[Engine]:
    with Source() as source:
        source.answers = {
            "/page": Answer(b"<p>"),
            "/other": Answer(b"<p>"),
            "/a.png": Answer(picture("a").body),
            "/b.png": Answer(picture("b").body),
        }
        project = given_a_project(folder, url, source.url, listener)
        project.scrapy("apply")
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE catlog.schedule SET next_due_at = now()"))
        project.scrapy("schedule", "--once")
        project.scrapy("work", "--drain")
        yield engine
        engine.dispose()


def given_a_project(folder: Path, url: str, base_url: str, listener: str) -> Project:
    project = Project(folder, url)
    project.write("shop/parts.py", PARTS)
    settings = project.folder / "shop/settings.py"
    settings.write_text(
        settings.read_text() + f'EXTENSIONS = {{"shop.parts.PipelineCounter": 1, {listener}}}\n'
    )
    toml = [f'[provider]\nname = "cases"\nbase_url = "{base_url}"\n']
    for name, case in CASES.items():
        header = HEADER.format(name=name.title().replace("_", ""), view=name)
        body = f"class Case(Base):\n    name = '{name}'\n{case.spider.rstrip()}\n"
        project.write(f"shop/spiders/{name}.py", header + body)
        toml.append(
            f'[[scheme]]\nname = "{name}"\nmax_errors = 1\n'
            f'[[scheme.operation]]\nname = "{name}"\n{case.declared}\n'
            f'[[schedule]]\nname = "daily"\nscheme = "{name}"\ncron = "0 3 * * *"\n'
        )
    project.write("shop/providers/cases.toml", "\n".join(toml))
    return project


def attempt_of(engine: Engine, scheme: str) -> dict[str, Any]:
    """Return outcome, counts and compared statistics of the only attempt of *scheme*."""
    [found] = rows(
        engine,
        """SELECT a.outcome, a.error, a.accepted, a.rejected, a.dropped, a.read_to, a.stats
           FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           JOIN catlog.catalog c ON c.id = i.catalog_id
           JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE s.name = :scheme""",
        scheme=scheme,
    )
    *columns, stats = found
    kept = {name: value for name, value in stats.items() if name.startswith(COMPARED)}
    return {"columns": columns, "stats": kept, "pipelined": stats.get("pipelined", 0)}


def results_of(engine: Engine, scheme: str) -> list[tuple[Any, ...]]:
    """Return key and data of all results of *scheme*, in the order in which they were stored."""
    return rows(
        engine,
        """SELECT r.key, r.data::jsonb FROM catlog.catalog_operation_instance_result r
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
           JOIN catlog.catalog c ON c.id = i.catalog_id
           JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE s.name = :scheme ORDER BY r.seq""",
        scheme=scheme,
    )


def rejections_of(engine: Engine, scheme: str) -> list[tuple[Any, ...]]:
    """Return the rejected items of *scheme* with their reasons."""
    return rows(
        engine,
        """SELECT r.data, r.errors, r.url IS NOT NULL FROM catlog.rejected_result r
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
           JOIN catlog.catalog c ON c.id = i.catalog_id
           JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE s.name = :scheme ORDER BY r.data""",
        scheme=scheme,
    )


def comparable(value: Any) -> str:
    """Return *value* as text without ports, hashes of URLs and addresses of objects."""
    return re.sub(r"(?<=127\.0\.0\.1):\d+|(?<=full/)[0-9a-f]+| at 0x\w+", "", repr(value))


@pytest.mark.parametrize("name", CASES)
def test_both_paths_of_items_give_the_same_outcome_and_statistics(
    fast: Engine, slow: Engine, name: str
) -> None:
    of_fast, of_slow = attempt_of(fast, name), attempt_of(slow, name)
    assert of_fast["columns"][0] == CASES[name].outcome, of_fast
    assert of_fast.pop("pipelined") == CASES[name].pipelined
    assert of_slow.pop("pipelined") >= CASES[name].pipelined
    assert comparable(of_fast) == comparable(of_slow)


@pytest.mark.parametrize("name", CASES)
def test_both_paths_of_items_store_the_same_rows(fast: Engine, slow: Engine, name: str) -> None:
    of_fast, of_slow = results_of(fast, name), results_of(slow, name)
    assert sorted(map(comparable, of_fast)) == sorted(map(comparable, of_slow))
    assert comparable(rejections_of(fast, name)) == comparable(rejections_of(slow, name))
    if (order := CASES[name].order) is not None:
        assert [int(key) for key, _ in of_fast] == order


def test_last_item_of_a_key_in_the_order_of_the_spider_wins(fast: Engine) -> None:
    assert rows(fast, "SELECT text FROM public.one_key_many_times") == [("last 299",)]


ENDLESS = """
from pathlib import Path

from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key="id", view="things"):
    id: int
    text: str = ""


class Things(Spider):
    name = "things"
    record = Thing
    origin: str = "callback"
    yielded = Path(__file__).with_name("yielded")

    def items(self):
        for n in range(300_000):
            if n % 1000 == 0:
                self.yielded.write_text(str(n))
            yield {"id": n, "text": "x" * 200}
        self.yielded.write_text("all")

    async def start(self):
        if self.origin == "callback":
            yield Request("data:text/plain,nothing")
            return
        for item in self.items():
            yield item

    def parse(self, response):
        yield from self.items()
"""


def allow_data_urls(project: Project) -> None:
    with (project.folder / "shop/settings.py").open("a") as settings:
        settings.write(
            "DOWNLOAD_HANDLERS = "
            '{"data": "scrapy.core.downloader.handlers.datauri.DataURIDownloadHandler"}'
        )


@pytest.mark.parametrize("origin", ["callback", "start"])
def test_crawl_of_many_items_keeps_its_lease_waits_for_the_database_and_is_cancelled(
    engine: Engine, database_url: str, tmp_path: Path, origin: str
) -> None:
    project = Project(tmp_path, database_url, CATLOG_LEASE="3")
    allow_data_urls(project)
    project.write("shop/spiders/things.py", ENDLESS)
    project.write(
        "shop/providers/maker.toml",
        '[provider]\nname = "maker"\n[[scheme]]\nname = "things"\noperations = ["things"]\n',
    )
    project.scrapy("apply")
    yielded = tmp_path / "shop/spiders/yielded"
    with engine.connect() as other:
        # No batch can be stored, as if the database were slow.
        other.execute(text("LOCK TABLE catlog.catalog_operation_instance_result IN EXCLUSIVE MODE"))
        load = project.start("load", "maker/things", "-a", f"origin={origin}")
        until(lambda: yielded.exists() and int(yielded.read_text() or 0) >= 10_000)
        time.sleep(6)  # two leases
        assert int(yielded.read_text()) < 40_000
        other.rollback()
    until(lambda: int(yielded.read_text() or 0) >= 50_000)
    ((catalog,),) = rows(engine, "SELECT id::text FROM catlog.catalog")
    project.scrapy("cancel", catalog)
    out, err = load.communicate()
    assert "cancelled" in out + err
    assert rows(engine, "SELECT attempt, outcome FROM catlog.instance_attempt") == [
        (1, "cancelled")
    ]
    assert yielded.read_text() != "all"


def test_debug_log_lists_the_items_of_the_fast_path(database_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path, database_url)
    allow_data_urls(project)
    project.write("shop/spiders/things.py", ENDLESS.replace("300_000", "3"))
    project.write(
        "shop/providers/maker.toml",
        '[provider]\nname = "maker"\n[[scheme]]\nname = "things"\noperations = ["things"]\n',
    )
    project.scrapy("apply")
    for level, count in (("DEBUG", 3), ("INFO", 0)):
        printed = project.scrapy("crawl", "things", "-L", level)
        assert printed.count("Scraped from <200 data:text/plain,nothing>") == count, printed
