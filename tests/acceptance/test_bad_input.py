"""Faults of sources and spiders: the true reason is stored, and no partial data is visible.

One worker runs all cases; each test looks at what became of its own.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.db.engine import make_engine
from tests.support.cases import Case, check_case, given_cases, queue_cases
from tests.support.postgres import Postgres
from tests.support.source import Answer, Source

FIELDS = """share: float | None = None
    text: str = ""
    extra: dict[str, Any] = {}"""
PAGES = """
    async def start(self):
        yield Request(self.base_url + "/page/1")

    def parse(self, response):
        number = int(response.url.rsplit("/", 1)[1])
        yield {"id": f"of page {number}"}
        if number < 5:
            yield Request(self.base_url + f"/page/{number + 1}")
"""

CASES = {
    "a_good_one": Case("", "loaded", keys={"a", "b"}),
    "a_500_on_page_3_of_5": Case(PAGES, error="HTTP 500 for http://127.0.0.1"),
    "a_timeout": Case(
        'path = "/slow"\n    custom_settings = {"DOWNLOAD_TIMEOUT": 0.3}',
        error="1 request failed",
    ),
    "a_redirect_loop": Case('path = "/loop"', error="a redirect loop at http://127.0.0.1"),
    "an_unfiltered_redirect_loop": Case(
        """
    custom_settings = {"REDIRECT_MAX_TIMES": 3}

    async def start(self):
        yield Request(self.base_url + "/loop", dont_filter=True)
""",
        error="max redirections reached",
    ),
    "a_404_without_errback": Case('path = "/missing"', error="HTTP 404"),
    "a_404_with_errback": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/missing", errback=self.missing)

    def missing(self, failure):
        yield {"id": "from errback"}
""",
        "loaded",
        keys={"from errback"},
    ),
    "an_errback_that_passes_it_on": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/missing", errback=lambda failure: failure)
        yield Request(self.base_url + "/ok")
""",
        error="HTTP 404",
    ),
    "an_allowed_404": Case(
        """
    path = "/missing"
    handle_httpstatus_list = [404]

    def parse(self, response):
        yield {"id": str(response.status)}
""",
        "loaded",
        keys={"404"},
    ),
    "a_tolerated_404": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/missing")
        yield Request(self.base_url + "/ok")
""",
        "loaded",
        keys={"a", "b"},
        declared="tolerate = { failed_requests = 1 }",
    ),
    "robots_txt_with_500": Case(
        'custom_settings = {"ROBOTSTXT_OBEY": True}',
        error="1 request blocked by robots.txt, tolerated 0; the first: forbidden by robots.txt,"
        " which cannot be reached (HTTP 500): http://127.0.0.1",
    ),
    "a_tolerated_robots_txt_with_500": Case(
        'custom_settings = {"ROBOTSTXT_OBEY": True}',
        "loaded",
        keys={"a", "b"},
        declared="tolerate = { unreachable_robots = 1 }",
    ),
    "robots_txt_with_403": Case(
        """
    custom_settings = {"ROBOTSTXT_OBEY": True}

    async def start(self):
        yield Request(self.base_url.replace("127.0.0.1", "127.0.0.2") + "/ok")
""",
        "loaded",
        keys={"a", "b"},
    ),
    "a_truncated_robots_txt": Case(
        """
    custom_settings = {"ROBOTSTXT_OBEY": True}

    async def start(self):
        yield Request(self.base_url.replace("127.0.0.1", "127.0.0.3") + "/ok")
""",
        error="forbidden by robots.txt, which cannot be reached (TruncatedResponse: the resp",
    ),
    "robots_txt_of_a_silent_host": Case(
        """
    custom_settings = {"ROBOTSTXT_OBEY": True, "DOWNLOAD_TIMEOUT": 0.5}

    async def start(self):
        yield Request(self.base_url.replace("127.0.0.1", "127.0.0.4") + "/ok")
""",
        error="forbidden by robots.txt, which cannot be reached (DownloadTimeoutError",
    ),
    "forbidden_by_robots_txt": Case(
        """
    custom_settings = {"ROBOTSTXT_OBEY": True}

    async def start(self):
        yield Request(self.base_url.replace("127.0.0.1", "localhost") + "/ok")
        yield Request(self.base_url.replace("127.0.0.1", "localhost") + "/private")
""",
        error="1 request blocked by robots.txt, tolerated 0; the first: forbidden by robots.txt",
    ),
    "a_changed_markup": Case(
        """
    def parse(self, response):
        for product in response.jmespath("products[].id").getall():
            yield {"id": product}
""",
        error="0 results, at least 1 expected",
    ),
    "invalid_json": Case('path = "/broken.json"', error="JSONDecodeError"),
    "an_item_without_its_key": Case(
        'path = "/keyless"', error="1 item rejected", rejected="id: Field required"
    ),
    "a_tolerated_reject": Case(
        'path = "/keyless"',
        "loaded",
        keys={"a"},
        rejected="id: Field required",
        declared="tolerate = { rejected = 0.5 }",
    ),
    "text_with_u0000": Case('path = "/nul"', error="U+0000", rejected="U+0000"),
    "a_lone_surrogate": Case(
        'path = "/surrogate"', error="1 item rejected, tolerated 0", rejected="surrogates"
    ),
    "a_number_too_large": Case('path = "/large"', error="less than or equal", rejected="number"),
    "nan": Case('path = "/nan"', error="finite", rejected="share"),
    "nan_deep_inside": Case('path = "/deep-nan"', error="JSON cannot hold", rejected="extra.x"),
    "an_unknown_field": Case('path = "/unknown"', error="Extra inputs", rejected="colour"),
    "ten_megabytes_in_one_item": Case('path = "/huge"', "loaded", keys={"huge"}),
    "a_duplicate_key": Case('path = "/twice"', "loaded", keys={"a"}),
    "an_empty_source": Case('path = "/empty"', error="0 results"),
    "a_batch_with_a_bad_one": Case(
        """
    path = "/keyless"

    def parse(self, response):
        yield Batch(json.loads(response.body))
""",
        error="1 item rejected",
        rejected="id: Field required",
    ),
    "no_item_at_all": Case(
        """
    def parse(self, response):
        yield "just text"
""",
        error="1 item rejected",
        rejected="a str is not an item",
    ),
    "a_callback_that_raises": Case(
        """
    def parse(self, response):
        yield {"id": "a"}
        raise ZeroDivisionError("by nothing")
""",
        error="ZeroDivisionError: by nothing",
    ),
    "an_error_that_is_no_text": Case(
        """
    def parse(self, response):
        self.crawler.stats.set_value("odd \\ud800 name", float("nan"))
        raise ValueError("a lone \\ud800, a \\0 and an emoji \U0001f600")
""",
        error="a lone \\ud800, a \\0 and an emoji \U0001f600",
    ),
    "a_key_with_tabs_and_backslashes": Case(
        """
    def parse(self, response):
        yield {"id": "a\\tb\\\\c\\nd", "text": "\\\\."}
""",
        "loaded",
        keys={"a\tb\\c\nd"},
    ),
    "an_errback_generator_that_passes_it_on": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/missing", errback=self.missing)
        yield Request(self.base_url + "/ok")

    def missing(self, failure):
        yield {"id": "from errback"}
        failure.raiseException()
""",
        error="HTTP 404",
    ),
    "a_redirect_to_the_same_page_spelled_otherwise": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/frag")
        yield Request(self.base_url + "/ok")
""",
        error="a redirect loop",
    ),
    "an_item_too_deep": Case(
        """
    def parse(self, response):
        deep = []
        for _ in range(8000):
            deep = [deep]
        yield {"id": "a"}
        yield Batch([{"id": "b"}, {"id": "c", "extra": {"x": deep}}])
""",
        error="1 item rejected, tolerated 0",
        rejected="depth exceeded",
    ),
    "closed_as_finished_too_early": Case(
        """
    def parse(self, response):
        from scrapy.exceptions import CloseSpider

        yield {"id": "a"}
        for page in range(1, 6):
            yield Request(self.base_url + f"/page/{page}")
        raise CloseSpider("finished")
""",
        error="closed as 'finished' with work still to do",
    ),
    "a_url_that_is_too_long": Case(
        """
    def parse(self, response):
        yield {"id": "a"}
        yield Request(self.base_url + "/ok?" + "x" * 3000)
""",
        error="URLLENGTH_LIMIT",
    ),
    "an_idle_handler_that_raises": Case(
        """
    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        from scrapy import signals

        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.idle, signals.spider_idle)
        return spider

    def idle(self):
        raise ZeroDivisionError("when idle")
""",
        error="ZeroDivisionError: when idle",
    ),
    "a_pipeline_that_is_cancelled": Case(
        'custom_settings = {"ITEM_PIPELINES": {"shop.parts.CancelledPipeline": 300}}',
        error="CancelledError",
        timeout="3s",
    ),
    "one_that_never_ends_to_start": Case(
        """
    custom_settings = {"ITEM_PIPELINES": {"shop.parts.SlowPipeline": 300}}

    async def start(self):
        number = 0
        while True:
            number += 1
            yield {"id": str(number)}
""",
        error="ran past its time limit",
        timeout="2s",
    ),
    "an_errback_that_raises": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/ok")
        yield Request(self.base_url + "/missing", errback=self.missing)

    def missing(self, failure):
        raise ZeroDivisionError("in errback")
""",
        error="ZeroDivisionError: in errback",
    ),
    "start_that_raises": Case(
        """
    async def start(self):
        yield {"id": "a"}
        raise ZeroDivisionError("in start")
""",
        error="ZeroDivisionError: in start",
    ),
    "a_pipeline_that_raises": Case(
        'custom_settings = {"ITEM_PIPELINES": {"shop.parts.RaisingPipeline": 300}}',
        error="ZeroDivisionError: in a pipeline",
    ),
    "a_downloader_middleware_that_raises": Case(
        'custom_settings = {"DOWNLOADER_MIDDLEWARES": {"shop.parts.RaisingMiddleware": 300}}',
        error="ZeroDivisionError: in a middleware",
    ),
    "a_spider_middleware_that_raises": Case(
        'custom_settings = {"SPIDER_MIDDLEWARES": {"shop.parts.RaisingSpiderMiddleware": 300}}',
        error="ZeroDivisionError: in a spider middleware",
    ),
    "open_spider_that_raises": Case(
        'custom_settings = {"ITEM_PIPELINES": {"shop.parts.RaisingOpen": 300}}',
        error="ZeroDivisionError: in open_spider",
    ),
    "close_spider_that_raises": Case(
        'custom_settings = {"ITEM_PIPELINES": {"shop.parts.RaisingClose": 300}}',
        error="ZeroDivisionError: in close_spider",
    ),
    "init_that_raises": Case(
        """
    def __init__(self, *args, **kwargs):
        raise ZeroDivisionError("in __init__")
""",
        error="ZeroDivisionError: in __init__",
    ),
    "a_pipeline_that_drops": Case(
        'custom_settings = {"ITEM_PIPELINES": {"shop.parts.DroppingPipeline": 300}}',
        "loaded",
        keys={"b"},
    ),
    "a_spider_that_closes_itself": Case(
        """
    def parse(self, response):
        from scrapy.exceptions import CloseSpider

        yield {"id": "a"}
        raise CloseSpider("enough")
""",
        error="closed with 'enough'",
    ),
    "one_that_hangs": Case(
        """
    async def start(self):
        import asyncio

        yield {"id": "a"}
        await asyncio.sleep(3600)
""",
        error="ran past its time limit",
        timeout="2s",
    ),
    "one_that_always_fails": Case(
        'path = "/missing"',
        error="3 attempts failed; last error: ",
        declared='backoff = { base = "0.1s", cap = "0.2s" }',
        scheme="max_errors = 3",
    ),
    "offsite_duplicate_and_too_deep_do_not_count": Case(
        """
    allowed_domains = ["127.0.0.1"]
    custom_settings = {"DEPTH_LIMIT": 1}

    def parse(self, response):
        yield {"id": response.url[-1]}
        yield Request("http://elsewhere.invalid/", callback=self.parse)
        yield response.request.replace(dont_filter=False)
        yield Request(self.base_url + "/page/1", callback=self.parse)
        yield Request(self.base_url + "/page/2", callback=self.parse)
""",
        "loaded",
        keys={"k", "1", "2"},
    ),
}

PARTS = """
from scrapy.exceptions import DropItem


class RaisingPipeline:
    def process_item(self, item):
        raise ZeroDivisionError("in a pipeline")


class DroppingPipeline:
    def process_item(self, item):
        if item["id"] == "a":
            raise DropItem("not this one")
        return item


class CancelledPipeline:
    async def process_item(self, item):
        import asyncio

        raise asyncio.CancelledError


class SlowPipeline:
    async def process_item(self, item):
        import asyncio

        await asyncio.sleep(0.2)
        return item


class RaisingOpen:
    def open_spider(self):
        raise ZeroDivisionError("in open_spider")

    def process_item(self, item):
        return item


class RaisingClose:
    def close_spider(self):
        raise ZeroDivisionError("in close_spider")

    def process_item(self, item):
        return item


class RaisingMiddleware:
    def process_request(self, request):
        raise ZeroDivisionError("in a middleware")


class RaisingSpiderMiddleware:
    async def process_spider_output(self, response, result):
        async for item in result:
            yield item
        raise ZeroDivisionError("in a spider middleware")
"""


def answers() -> dict[str, Answer]:
    pages = {f"/page/{number}": Answer(b"[]") for number in range(1, 6)}
    return {
        **pages,
        "/page/3": Answer(status=500),
        "/ok": Answer(b'[{"id": "a", "number": 1}, {"id": "b", "number": 2}]'),
        "/slow": Answer(b"[]", delay=1.5),
        "/loop": Answer(status=302, headers={"Location": "/loop?again"}),
        "/loop?again": Answer(status=302, headers={"Location": "/loop"}),
        "/frag": Answer(status=302, headers={"Location": "/frag#here"}),
        "/robots.txt": Answer(status=500),
        "127.0.0.2/robots.txt": Answer(b"User-agent: *\nDisallow: /\n", status=403),
        "127.0.0.3/robots.txt": Answer(
            gzip.compress(b"User-agent: *\nDisallow: /private\n")[:-9],
            headers={"Content-Encoding": "gzip"},
        ),
        "127.0.0.4/robots.txt": Answer(delay=2.0),
        "localhost/robots.txt": Answer(b"User-agent: *\nDisallow: /private\n"),
        "/broken.json": Answer(b'[{"id": "a"'),
        "/keyless": Answer(b'[{"id": "a"}, {"number": 7}]'),
        "/nul": Answer(b'[{"id": "a", "text": "x\\u0000y"}]'),
        "/surrogate": Answer(b'[{"id": "a", "text": "\\ud800"}]'),
        "/large": Answer(b'[{"id": "a", "number": 99999999999999999999}]'),
        "/nan": Answer(b'[{"id": "a", "share": NaN}]'),
        "/deep-nan": Answer(b'[{"id": "a", "extra": {"x": NaN}}]'),
        "/unknown": Answer(b'[{"id": "a", "colour": "red"}]'),
        "/huge": Answer(b'[{"id": "huge", "text": "' + b"x" * 10_000_000 + b'"}]'),
        "/twice": Answer(b'[{"id": "a", "number": 1}, {"id": "a", "number": 2}]'),
        "/empty": Answer(b"[]"),
        "/private": Answer(b'[{"id": "private"}]'),
    }


@pytest.fixture(scope="module")
def loaded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases once and return the database."""
    with postgres.clone() as url, Source("") as source:
        source.answers = answers()
        folder = tmp_path_factory.mktemp("bad")
        modules = {"shop/parts.py": PARTS}
        project = given_cases(folder, url, source.url, CASES, modules=modules, fields=FIELDS)
        engine = make_engine(url)
        queue_cases(engine, CASES)
        project.scrapy("work", "--drain")
        yield engine
        engine.dispose()


def one(engine: Engine, sql: str, **values: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql), values).scalar()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gives_state_and_error_of_the_catalog(loaded: Engine, name: str) -> None:
    check_case(loaded, name, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.rejected])
def test_rejected_item_is_stored_with_reason_and_url(loaded: Engine, name: str) -> None:
    found = one(
        loaded,
        """SELECT r.errors::text || ' at ' || r.url FROM catlog.rejected_result r
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id WHERE o.name = :name""",
        name=name,
    )
    assert CASES[name].rejected in found
    assert "at http://127.0.0.1" in found


def test_last_item_of_a_duplicate_key_wins(loaded: Engine) -> None:
    assert one(loaded, "SELECT number FROM a_duplicate_key") == 2
    counted = (
        "SELECT published ->> 'duplicates' FROM catlog.catalog WHERE published ->> 'received' = '2'"
    )
    assert one(loaded, counted + " AND published ->> 'created' = '1'") == "1"


def test_item_of_ten_megabytes_is_stored_completely(loaded: Engine) -> None:
    assert one(loaded, "SELECT length(text) FROM ten_megabytes_in_one_item") == 10_000_000


def test_every_bad_input_leaves_a_log(loaded: Engine) -> None:
    with loaded.connect() as connection:
        logs = list(connection.execute(text("SELECT log FROM catlog.instance_attempt")).scalars())
    assert logs
    assert all(Path(log).is_file() for log in logs)


def test_bad_input_leaves_no_open_instance(loaded: Engine) -> None:
    assert not one(
        loaded, "SELECT count(*) FROM catlog.catalog WHERE state NOT IN ('loaded', 'failed')"
    )
    assert not one(
        loaded, "SELECT count(*) FROM catlog.catalog_scheme_operation_instance WHERE node <> ''"
    )
