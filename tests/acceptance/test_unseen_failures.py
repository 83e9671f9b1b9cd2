"""Failures of a crawl that Scrapy drops, waits for or only logs: no load counts as done.

One worker runs all cases; each test looks at what became of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.cases import Case, check_case, outcomes, run_cases
from tests.support.postgres import Postgres
from tests.support.raw_source import RawAnswer, RawSource, response
from tests.support.waiting import rows


def moved(to: str) -> RawAnswer:
    return response(b"", f"Location: {to}", status="302 Found")


ANSWERS: dict[str, RawAnswer | list[RawAnswer]] = {
    "/ok": response(b'[{"id": "a"}, {"id": "b"}]'),
    "/empty": response(b"[]"),
    "/busy": response(b"[]", status="503 Busy"),
    "/moved-1": moved("/login"),
    "/moved-2": moved("/login"),
    "/login": response(b"[]"),
    "/slash": moved("/slash/"),
    "/slash/": response(b'[{"id": "slash"}]'),
    "/refused": moved("/forbidden"),
}

RETRIES = """
    path = "/empty"
    custom_settings = {"RETRY_TIMES": 1}

    async def start(self):
        yield {"id": "a"}
        async for request in super().start():
            yield request

    def parse(self, response):
        from scrapy.downloadermiddlewares.retry import get_retry_request

        %s
"""
GIVEN_UP = "1 request failed, tolerated 0; the first: gave up http://127.0.0.1"
# What the spider does in the background while its callback runs.
BACKGROUND = """
    async def parse(self, response):
        yield {"id": "a"}
%s
        await asyncio.sleep(0.3)

    async def fail(self):
        await asyncio.sleep(0.05)
        raise ZeroDivisionError("in the background")

    def fail_now(self):
        raise ZeroDivisionError("in the background")
"""
UNSEEN = "ZeroDivisionError: in the background"
CANCELLED = "CancelledError was raised, but nothing was cancelled"
EXITED = "GeneratorExit was raised, but nothing was cancelled"


def background(*lines: str) -> Case:
    return Case(BACKGROUND % "\n".join(f"        {line}" for line in lines), error=UNSEEN)


def with_settings(settings: str, **options: str) -> Case:
    return Case(f"custom_settings = {settings}\n", **options)


CASES = {
    "page_that_the_spider_gives_up": Case(
        RETRIES % "return get_retry_request(response.request, spider=self, reason='empty')",
        error=f"{GIVEN_UP}",
    ),
    "page_given_up_with_own_statistics": Case(
        RETRIES
        % "return get_retry_request(response.request, spider=self, stats_base_key='again/empty')",
        error=GIVEN_UP,
    ),
    "page_given_up_with_a_partial_item": Case(
        RETRIES % "return get_retry_request(response.request, spider=self) or [{'id': 'partial'}]",
        error=GIVEN_UP,
    ),
    "tolerated_page_that_the_spider_gives_up": Case(
        RETRIES % "return get_retry_request(response.request, spider=self)",
        state="loaded",
        keys={"a"},
        declared="tolerate.failed_requests = 1",
    ),
    "page_that_a_middleware_gives_up": with_settings(
        '{"DOWNLOADER_MIDDLEWARES": {"shop.parts.RetryEmpty": 543}}\n    path = "/empty"',
        error="gave up retrying http://127.0.0.1",
    ),
    "page_of_a_status_given_up_by_scrapy": Case('path = "/busy"', error="HTTP 503"),
    "allowed_status_given_up_by_scrapy": Case(
        """
    path = "/busy"
    handle_httpstatus_list = [503]

    def parse(self, response):
        yield {"id": "a"}
""",
        state="loaded",
        keys={"a"},
    ),
    "redirect_to_an_offsite_host": Case(
        """
    allowed_domains = ["127.0.0.1"]

    async def start(self):
        yield Request(self.base_url + "/ok")
        yield Request(self.base_url + "/offsite")
""",
        error="/offsite to http://localhost",
    ),
    "offsite_links_of_the_spider": Case(
        """
    allowed_domains = ["127.0.0.1"]

    def parse(self, response):
        yield {"id": "a"}
        yield Request("http://localhost/")
""",
        state="loaded",
        keys={"a"},
    ),
    "redirects_to_one_page": Case(
        """
    async def start(self):
        yield {"id": "a"}
        yield Request(self.base_url + "/moved-1")
        yield Request(self.base_url + "/moved-2")
""",
        error="/login, which another request had",
    ),
    "redirect_to_another_spelling_of_a_url": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/slash/")
        yield Request(self.base_url + "/slash")
""",
        state="loaded",
        keys={"slash"},
    ),
    "redirect_that_a_component_filters": with_settings(
        '{"EXTENSIONS": {"shop.parts.Refuses": 1}}\n    path = "/refused"',
        error="/forbidden, filtered",
        declared="min_results = 0",
    ),
    "closed_that_raises_after_an_await": Case(
        """
    async def closed(self, reason):
        await asyncio.sleep(0.2)
        raise ZeroDivisionError("in the background")
""",
        error=UNSEEN,
    ),
    "extension_that_raises_late_at_the_end": with_settings(
        '{"EXTENSIONS": {"shop.parts.FailsLate": 1}}', error=UNSEEN
    ),
    "closed_that_raises_a_cancellation": Case(
        """
    async def closed(self, reason):
        await asyncio.sleep(0)
        raise asyncio.CancelledError
""",
        error="CancelledError",
    ),
    "task_that_fails": background("asyncio.create_task(self.fail())"),
    "task_that_fails_and_is_kept": background("self.task = asyncio.ensure_future(self.fail())"),
    "gathering_that_fails_and_is_kept": background(
        "self.kept = asyncio.gather(self.fail(), asyncio.sleep(0))"
    ),
    "future_of_an_executor_that_fails_and_is_kept": background(
        "self.kept = asyncio.get_running_loop().run_in_executor(None, self.fail_now)"
    ),
    "future_of_a_library_call_that_fails_and_is_kept": Case(
        BACKGROUND
        % "        self.kept = asyncio.get_running_loop().run_in_executor(None, json.loads, '?')",
        error="JSONDecodeError",
    ),
    "future_with_an_exception": background(
        "self.kept = asyncio.get_running_loop().create_future()",
        "self.kept.set_exception(ZeroDivisionError('in the background'))",
    ),
    "deferred_of_a_thread_that_fails_and_is_kept": background(
        "from twisted.internet.threads import deferToThread",
        "self.kept = deferToThread(self.fail_now)",
    ),
    "deferred_of_a_thread_that_fails": background(
        "from twisted.internet.threads import deferToThread",
        "deferToThread(self.fail_now)",
    ),
    "deferred_with_an_exception_that_is_kept": background(
        "from twisted.internet.defer import Deferred",
        "self.kept = Deferred()",
        "self.kept.errback(ZeroDivisionError('in the background'))",
    ),
    "deferred_with_an_exception": background(
        "from twisted.internet.defer import Deferred",
        "Deferred().errback(ZeroDivisionError('in the background'))",
    ),
    "background_failures_that_the_spider_handles": Case(
        """
    async def parse(self, response):
        from twisted.internet.defer import Deferred
        from twisted.internet.threads import deferToThread

        loop = asyncio.get_running_loop()
        failed = loop.create_future()
        failed.set_exception(ZeroDivisionError())
        deferred = Deferred()
        deferred.errback(ZeroDivisionError())
        self.kept = [
            asyncio.gather(self.fail(), self.fail()),
            loop.run_in_executor(None, self.fail_now),
            failed,
            deferred,
            deferToThread(self.fail_now),
        ]
        await asyncio.sleep(0.2)
        for each in self.kept:
            try:
                await each
            except ZeroDivisionError:
                pass
        yield {"id": "a"}

    async def fail(self):
        raise ZeroDivisionError

    def fail_now(self):
        raise ZeroDivisionError
""",
        state="loaded",
        keys={"a"},
    ),
    "task_group_member_that_the_spider_handles": Case(
        """
    async def parse(self, response):
        async def fail():
            raise ZeroDivisionError

        try:
            await asyncio.create_task(fail())
        except ZeroDivisionError:
            yield {"id": "a"}
        await asyncio.gather(fail(), return_exceptions=True)
""",
        state="loaded",
        keys={"a"},
    ),
    "delayed_call_that_fails": background(
        "asyncio.get_running_loop().call_later(0.05, self.fail_now)"
    ),
    "call_of_scrapy_that_fails": background(
        "from scrapy.utils.asyncio import call_later", "call_later(0.05, self.fail_now)"
    ),
    "reactor_call_that_fails": background(
        "from twisted.internet import reactor", "reactor.callLater(0.05, self.fail_now)"
    ),
    "looping_call_that_fails": background(
        "from scrapy.utils.asyncio import create_looping_call",
        "create_looping_call(self.fail_now).start(0.05)",
    ),
    "pool_thread_that_fails": background(
        "from twisted.internet import reactor", "reactor.callInThread(self.fail_now)"
    ),
    "thread_that_fails": background("threading.Thread(target=self.fail_now).start()"),
    "start_that_makes_a_failing_task": Case(
        """
    async def start(self):
        asyncio.create_task(self.fail())
        yield Request(self.base_url + self.path)

    async def fail(self):
        raise ZeroDivisionError("in the background")
""",
        error=UNSEEN,
    ),
    "callback_that_raises_a_cancellation": Case(
        """
    async def parse(self, response):
        raise asyncio.CancelledError
""",
        error=CANCELLED,
    ),
    "generator_that_raises_a_cancellation": Case(
        """
    async def parse(self, response):
        yield {"id": "a"}
        raise asyncio.CancelledError
""",
        error=CANCELLED,
    ),
    "generator_that_raises_generator_exit": Case(
        """
    def parse(self, response):
        yield {"id": "a"}
        raise GeneratorExit
""",
        error=EXITED,
    ),
    "async_generator_that_raises_generator_exit": Case(
        """
    async def parse(self, response):
        yield {"id": "a"}
        raise GeneratorExit
""",
        error=EXITED,
    ),
    "callback_that_awaits_a_cancelled_task": Case(
        """
    async def parse(self, response):
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task
""",
        error=CANCELLED,
    ),
    "errback_that_raises_a_cancellation": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/busy", errback=self.failed)

    async def failed(self, failure):
        raise asyncio.CancelledError
""",
        error=CANCELLED,
    ),
    "start_that_raises_a_cancellation": Case(
        """
    async def start(self):
        yield {"id": "a"}
        raise asyncio.CancelledError
""",
        error=CANCELLED,
    ),
    "start_that_raises_generator_exit": Case(
        """
    async def start(self):
        yield {"id": "a"}
        raise GeneratorExit
""",
        error=EXITED,
    ),
    "pipeline_that_raises_cancellations": Case(
        """
    custom_settings = {
        "ITEM_PIPELINES": {"shop.parts.Cancels": 1}, "CONCURRENT_ITEMS": 2
    }

    def parse(self, response):
        for number in range(50):
            yield {"id": str(number)}
""",
        error="CancelledError",
    ),
    "pipeline_that_raises_a_cancellation_as_it_closes": with_settings(
        '{"ITEM_PIPELINES": {"shop.parts.CancelsClosing": 1}}', error=CANCELLED
    ),
    "pipeline_that_raises_generator_exit_as_it_closes": with_settings(
        '{"ITEM_PIPELINES": {"shop.parts.ExitsClosing": 1}}', error=EXITED
    ),
    "pipeline_that_awaits_a_cancelled_task_as_it_closes": with_settings(
        '{"ITEM_PIPELINES": {"shop.parts.AwaitsCancelled": 1}}', error=CANCELLED
    ),
    "scheduler_that_raises_a_cancellation_as_it_closes": with_settings(
        '{"SCHEDULER": "shop.parts.CancelsScheduler"}', error=CANCELLED
    ),
    "scheduler_that_fails_late_as_it_closes": with_settings(
        '{"SCHEDULER": "shop.parts.FailsScheduler"}', error=UNSEEN
    ),
    "spider_middleware_that_raises_a_cancellation": with_settings(
        '{"SPIDER_MIDDLEWARES": {"shop.parts.CancelsOutput": 1}}', error=CANCELLED
    ),
    "spider_middleware_and_pipeline_with_a_cancellation": with_settings(
        '{"SPIDER_MIDDLEWARES": {"shop.parts.CancelsOutput": 1},'
        ' "ITEM_PIPELINES": {"shop.parts.Passes": 1}}',
        error=CANCELLED,
    ),
    "downloader_middleware_that_raises_a_cancellation": with_settings(
        '{"DOWNLOADER_MIDDLEWARES": {"shop.parts.CancelsRequests": 1}}', error="CancelledError"
    ),
}

PARTS = """
import asyncio

from scrapy import signals
from scrapy.core.scheduler import Scheduler
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import IgnoreRequest
from scrapy.utils.defer import deferred_from_coro


class RetryEmpty:
    @classmethod
    def from_crawler(cls, crawler):
        middleware = cls()
        middleware.crawler = crawler
        return middleware

    def process_response(self, request, response):
        if response.body == b"[]":
            again = get_retry_request(request, spider=self.crawler.spider, reason="empty")
            return again or response
        return response


class Refuses:
    @classmethod
    def from_crawler(cls, crawler):
        extension = cls()
        crawler.signals.connect(extension.scheduled, signals.request_scheduled)
        return extension

    def scheduled(self, request):
        if request.url.endswith("/forbidden"):
            raise IgnoreRequest("not this one")


class FailsLate:
    @classmethod
    def from_crawler(cls, crawler):
        extension = cls()
        crawler.signals.connect(extension.closed, signals.spider_closed)
        return extension

    async def closed(self):
        await asyncio.sleep(0.2)
        raise ZeroDivisionError("in the background")


class Cancels:
    async def process_item(self, item):
        await asyncio.sleep(0)
        raise asyncio.CancelledError


class CancelsClosing:
    async def close_spider(self):
        await asyncio.sleep(0)
        raise asyncio.CancelledError


class ExitsClosing:
    async def close_spider(self):
        raise GeneratorExit


class AwaitsCancelled:
    async def close_spider(self):
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task


class CancelsScheduler(Scheduler):
    def close(self, reason):
        super().close(reason)
        raise asyncio.CancelledError


class FailsScheduler(Scheduler):
    def close(self, reason):
        super().close(reason)
        return deferred_from_coro(self.fail())

    async def fail(self):
        await asyncio.sleep(0.05)
        raise ZeroDivisionError("in the background")


class Passes:
    def process_item(self, item):
        return item


class CancelsOutput:
    async def process_spider_output(self, response, result):
        async for item in result:
            yield item
        raise asyncio.CancelledError


class CancelsRequests:
    async def process_request(self, request):
        raise asyncio.CancelledError
"""


@pytest.fixture(scope="module")
def loaded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases once and return the database."""
    with postgres.clone() as url, RawSource() as source:
        offsite = source.url.replace("127.0.0.1", "localhost")
        source.answers = ANSWERS | {"/offsite": moved(f"{offsite}/ok")}
        folder: Path = tmp_path_factory.mktemp("unseen")
        modules = {"shop/parts.py": PARTS}
        engine = run_cases(folder, url, source.url, CASES, modules=modules)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("name", CASES)
def test_unseen_failure_fails_the_attempt(loaded: Engine, name: str) -> None:
    check_case(loaded, name, CASES[name])


def test_unseen_failures_leave_no_attempt_to_its_time_limit(loaded: Engine) -> None:
    assert rows(
        loaded,
        "SELECT count(*) FROM catlog.instance_attempt WHERE outcome IN ('timed_out', 'lost')",
    ) == [(0,)]


@pytest.mark.parametrize("name", [name for name in CASES if "give" in name or "redirect" in name])
def test_request_without_a_page_makes_the_attempt_incomplete(loaded: Engine, name: str) -> None:
    expected = "done" if CASES[name].keys else "incomplete"
    assert outcomes(loaded, name) == [expected]
