"""Responses that are not complete: the attempt is incomplete, whatever Scrapy makes of them.

One worker runs all cases; each test looks at what became of its own.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from scrapy.utils._compression import brotli, zstd
from sqlalchemy import Engine

from tests.support.cases import Case, check_case, end_of, load_cases, outcomes, run_cases
from tests.support.postgres import Postgres
from tests.support.project import Project
from tests.support.raw_source import RawAnswer, RawSource, response
from tests.support.waiting import rows

KEYS = {f"k{number}" for number in range(2000)}
LINES = "".join(f'{{"id": "k{number}"}}\n' for number in range(2000)).encode()
# Each body is cut in the middle of its records.
PACKED = {
    "gzip": gzip.compress(LINES),
    "deflate": zlib.compress(LINES),
    "br": brotli.compress(LINES),
    "zstd": zstd.compress(LINES),
}
# The spider reads whole lines, so a cut body yields fewer records and no exception.
READS_LINES = """
    path = "{path}"

    def parse(self, response):
        for line in response.body.splitlines():
            if line.endswith(b"}}"):
                yield json.loads(line)
"""
TRUNCATED = "1 response truncated, tolerated 0; the first: the response of http://127.0.0.1"


def reads(path: str, **options: str) -> Case:
    return Case(READS_LINES.format(path=path), error=TRUNCATED, **options)


def cut(body: bytes) -> bytes:
    return body[: int(len(body) * 0.7)]


def with_bad_crc(body: bytes) -> bytes:
    return body[:-8] + bytes([body[-8] ^ 1]) + body[-7:]


ANSWERS: dict[str, RawAnswer | list[RawAnswer]] = {
    "/ok": response(b'[{"id": "a"}, {"id": "b"}]'),
    "/gzip-bad-crc": response(with_bad_crc(PACKED["gzip"]), "Content-Encoding: gzip"),
    "/gzip-second-member": response(
        PACKED["gzip"] + cut(PACKED["gzip"]), "Content-Encoding: x-gzip"
    ),
    "/gzip-of-brotli": response(
        gzip.compress(cut(PACKED["br"])), "Content-Encoding: br", "Content-Encoding: gzip"
    ),
    "/gzip-empty": response(b"", "Content-Encoding: gzip"),
    "/without-length-cut": response(cut(LINES), version="1.0", length=None),
    "/without-length-reset": response(cut(LINES), version="1.0", length=None, reset=True),
    "/without-length": response(LINES, version="1.0", length=None),
    "/without-length-gzip": response(
        PACKED["gzip"], "Content-Encoding: gzip", version="1.0", length=None
    ),
    "/too-short": response(cut(LINES), length=len(LINES)),
    "/chunked": RawAnswer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(LINES):x}\r\n".encode()
        + cut(LINES)
    ),
    "/reset": response(cut(LINES), length=len(LINES), reset=True),
    "/404-short": response(b"[]", status="404 Not Found", length=99),
    "/206": response(cut(LINES), "Content-Range: bytes 0-99/200", status="206 Partial Content"),
    "/part.gz": response(PACKED["gzip"][:100], status="206 Partial Content"),
    "/identity": response(cut(PACKED["gzip"]), "Content-Encoding: gzip, identity"),
    "/empty-element": response(cut(PACKED["br"]), "Content-Encoding: br,"),
    "/parameter": response(cut(PACKED["gzip"]), "Content-Encoding: gzip ;q=1"),
    "/unknown-coding": response(cut(PACKED["zstd"]), "Content-Encoding: zstd, x-own"),
    "/identity-whole": response(PACKED["gzip"], "Content-Encoding: gzip, identity"),
    "/identity-plain": response(LINES, "Content-Encoding: identity"),
    **{
        f"/range-{sent}-of-{total}": response(
            LINES[slice(*(int(at) + end for end, at in enumerate(sent.split("-"))))],
            f"Content-Range: bytes {sent}/{total}",
            status="206 Partial Content",
        )
        for sent, total in (
            ("0-349", 12000),
            ("350-699", 12000),
            ("0-699", 12000),
            ("0-349", 350),
            ("0-349", "*"),
            ("600-649", 700),
            ("600-699", 700),
        )
    },
    "/range-short": response(
        LINES[:300], "Content-Range: bytes 0-699/12000", status="206 Partial Content"
    ),
    "/203": response(cut(LINES), status="203 Non-Authoritative Information"),
    "/file.gz": response(cut(PACKED["gzip"])),
    "/file.bz2": response(cut(bz2.compress(LINES))),
    "/whole.gz": response(PACKED["gzip"]),
    "/once": [response(cut(PACKED["gzip"]), "Content-Encoding: gzip"), response(LINES)],
    "/404": response(cut(PACKED["gzip"]), "Content-Encoding: gzip", status="404 Not Found"),
    "/moved": response(b"", "Location: /ok", status="302 Found", version="1.0", length=None),
    "/sitemap.xml.gz": response(
        cut(
            gzip.compress(
                b"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>"
                + b"".join(
                    f"<url><loc>http://127.0.0.1/{n}</loc></url>".encode() for n in range(99)
                )
                + b"</urlset>"
            )
        )
    ),
}
for coding, packed in PACKED.items():
    ANSWERS[f"/{coding}-cut"] = response(cut(packed), f"Content-Encoding: {coding}")
    ANSWERS[f"/{coding}-whole"] = response(packed, f"Content-Encoding: {coding}")

DATALOSS = '    custom_settings = {"DOWNLOAD_FAIL_ON_DATALOSS": False}\n'
UNPACKS = """
    path = "%s"

    def parse(self, response):
        import zlib

        # As much as there is, as gunzip of Scrapy does.
        for line in zlib.decompressobj(31).decompress(response.body).splitlines():
            if line.endswith(b"}"):
                yield json.loads(line)
"""
RANGE = """
    async def start(self):
        yield {"id": "a"}
        ranged = {"Range": "%s"}
        yield Request(self.base_url + "%s", headers=ranged, callback=self.part)

    def part(self, response):
        yield {"id": "part"}
"""
CASES = {
    "a_good_one": Case(state="loaded", keys={"a", "b"}),
    **{f"{name}_cut": reads(f"/{name}-cut") for name in PACKED},
    **{
        f"{name}_whole": Case(READS_LINES.format(path=f"/{name}-whole"), state="loaded", keys=KEYS)
        for name in PACKED
    },
    "gzip_with_bad_crc": reads("/gzip-bad-crc"),
    "gzip_with_a_cut_second_member": reads("/gzip-second-member"),
    "gzip_around_cut_brotli": reads("/gzip-of-brotli"),
    "empty_gzip": reads("/gzip-empty"),
    "http_1_0_closed_in_the_body": Case(
        READS_LINES.format(path="/without-length-cut"), error="is truncated: its end is unknown"
    ),
    "http_1_0_reset_in_the_body": Case(
        READS_LINES.format(path="/without-length-reset"), error="is truncated: its end is unknown"
    ),
    "page_without_length": Case(
        READS_LINES.format(path="/without-length"),
        error="1 response without a verifiable end, tolerated 0; the first: the response of http",
    ),
    "tolerated_page_without_length": Case(
        READS_LINES.format(path="/without-length"),
        state="loaded",
        keys=KEYS,
        declared="tolerate.without_length = 1",
    ),
    "gzip_without_length": Case(
        READS_LINES.format(path="/without-length-gzip"), state="loaded", keys=KEYS
    ),
    "redirect_without_length": Case('path = "/moved"', state="loaded", keys={"a", "b"}),
    "shorter_than_its_length": Case(
        READS_LINES.format(path="/too-short") + DATALOSS, error=TRUNCATED
    ),
    "chunks_that_end_early": Case(READS_LINES.format(path="/chunked") + DATALOSS, error=TRUNCATED),
    "shorter_than_its_length_by_default": reads("/too-short"),
    "chunks_that_end_early_by_default": reads("/chunked"),
    "reset_in_the_body": reads("/reset"),
    "request_that_asks_to_fail_on_data_loss": Case(
        """
    async def start(self):
        yield {"id": "a"}
        meta = {"download_fail_on_dataloss": True}
        yield Request(self.base_url + "/too-short", meta=meta)
""",
        error=TRUNCATED,
    ),
    "tolerated_body_shorter_than_its_length": Case(
        READS_LINES.format(path="/too-short"),
        state="loaded",
        keys={f"k{number}" for number in range(len(cut(LINES).splitlines()) - 1)},
        declared="tolerate.truncated = 1",
    ),
    "short_page_with_a_status_that_fails_anyway": Case('path = "/404-short"', error="HTTP 404 for"),
    "unrequested_206": reads("/206"),
    "unrequested_203": reads("/203"),
    "allowed_203": Case(
        READS_LINES.format(path="/203") + "    handle_httpstatus_list = [203]\n",
        state="loaded",
        keys={f"k{number}" for number in range(len(cut(LINES).splitlines()) - 1)},
    ),
    "requested_206": Case(
        """
    async def start(self):
        yield Request(self.base_url + "/206", headers={"Range": "bytes=0-99"}, callback=self.part)

    def part(self, response):
        yield {"id": "part"}
""",
        state="loaded",
        keys={"part"},
    ),
    "requested_range_of_a_gz_file": Case(
        """
    async def start(self):
        ranged = {"Range": "bytes=0-99"}
        yield Request(self.base_url + "/part.gz", headers=ranged, callback=self.part)

    def part(self, response):
        yield {"id": "part"}
""",
        state="loaded",
        keys={"part"},
    ),
    "gzip_with_identity": reads("/identity"),
    "brotli_with_an_empty_element": reads("/empty-element"),
    "gzip_with_a_parameter": reads("/parameter"),
    "zstd_with_an_unknown_coding": reads("/unknown-coding"),
    "whole_gzip_with_identity": Case(UNPACKS % "/identity-whole", state="loaded", keys=KEYS),
    "body_with_identity": Case(
        READS_LINES.format(path="/identity-plain"), state="loaded", keys=KEYS
    ),
    **{
        f"range_that_{name}": Case(RANGE % (asked, path), error=TRUNCATED)
        for name, asked, path in (
            ("ends_early", "bytes=0-699", "/range-0-349-of-12000"),
            ("begins_late", "bytes=0-699", "/range-350-699-of-12000"),
            ("ends_early_of_an_unknown_total", "bytes=0-699", "/range-0-349-of-*"),
            ("is_open_and_ends_early", "bytes=600-", "/range-600-649-of-700"),
            ("is_a_suffix_and_ends_early", "bytes=-100", "/range-600-649-of-700"),
            ("has_fewer_bytes_than_it_says", "bytes=0-699", "/range-short"),
        )
    },
    **{
        f"range_that_{name}": Case(RANGE % (asked, path), state="loaded", keys={"a", "part"})
        for name, asked, path in (
            ("is_as_requested", "bytes=0-699", "/range-0-699-of-12000"),
            ("ends_with_the_body", "bytes=0-699", "/range-0-349-of-350"),
            ("is_open_and_ends_with_the_body", "bytes=600-", "/range-600-699-of-700"),
            ("is_a_suffix_and_ends_with_the_body", "bytes=-100", "/range-600-699-of-700"),
        )
    },
    "range_that_the_spider_completes": Case(
        RANGE % ("bytes=0-699", "/range-0-349-of-12000") + "    handle_httpstatus_list = [206]\n",
        state="loaded",
        keys={"a", "part"},
    ),
    "gz_file_that_the_spider_unpacks": Case(UNPACKS % "/file.gz", error=TRUNCATED),
    "bz2_file": reads("/file.bz2"),
    "whole_gz_file": Case(UNPACKS % "/whole.gz", state="loaded", keys=KEYS),
    "sitemap": Case(
        """
    async def start(self):
        from scrapy.spiders import SitemapSpider

        yield {"id": "a"}
        spider = SitemapSpider.from_crawler(self.crawler, name="of the sitemap")
        url = self.base_url + "/sitemap.xml.gz"
        yield Request(url, callback=lambda response: list(spider._parse_sitemap(response))[:0])
""",
        error=TRUNCATED,
    ),
    "cut_once": Case(
        READS_LINES.format(path="/once") + '    custom_settings = {"RETRY_TIMES": 1}\n',
        state="loaded",
        keys=KEYS,
    ),
    "cut_page_with_a_status_that_fails_anyway": Case('path = "/404"', error="HTTP 404 for"),
    "cut_page_that_an_errback_handles": Case(
        """
    async def start(self):
        yield {"id": "a"}
        yield Request(self.base_url + "/gzip-cut", errback=lambda failure: None)
""",
        state="loaded",
        keys={"a"},
    ),
    "cut_page_of_download_async": Case(
        """
    async def parse(self, response):
        await self.crawler.engine.download_async(Request(self.base_url + "/gzip-cut"))
        yield {"id": "a"}
""",
        error=TRUNCATED,
    ),
    "tolerated_cut_page": Case(
        READS_LINES.format(path="/gzip-cut"),
        state="loaded",
        keys=KEYS,
        declared="tolerate.truncated = 1",
    ),
    "download_that_the_spider_stops": Case(
        """
    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        from scrapy import signals

        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.stop, signals.headers_received)
        return spider

    def stop(self):
        from scrapy.exceptions import StopDownload

        raise StopDownload(fail=False)

    def parse(self, response):
        yield {"id": "a"}
""",
        state="loaded",
        keys={"a"},
    ),
}
# What a cut gzip body still yields.
CASES["tolerated_cut_page"].keys = {
    json.loads(line)["id"]
    for line in zlib.decompressobj(31).decompress(cut(PACKED["gzip"])).splitlines()
    if line.endswith(b"}")
}


@pytest.fixture(scope="module")
def loaded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases once and return the database."""
    with postgres.clone() as url, RawSource() as source:
        source.answers = dict(ANSWERS)
        engine = run_cases(tmp_path_factory.mktemp("truncated"), url, source.url, CASES)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("name", CASES)
def test_only_complete_responses_load(loaded: Engine, name: str) -> None:
    check_case(loaded, name, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.keys])
def test_attempt_with_a_truncated_response_is_incomplete(loaded: Engine, name: str) -> None:
    assert outcomes(loaded, name) == ["incomplete"]


def test_cut_body_removes_no_record(database_url: str, tmp_path: Path) -> None:
    case = {"of_gzip": reads("/gzip")}
    with RawSource() as source:
        source.answers["/gzip"] = response(PACKED["gzip"], "Content-Encoding: gzip")
        engine = run_cases(tmp_path, database_url, source.url, case)
        assert outcomes(engine, "of_gzip") == ["done"]
        source.answers["/gzip"] = response(cut(PACKED["gzip"]), "Content-Encoding: gzip")
        load_cases(Project(tmp_path, database_url), engine, case)
    assert outcomes(engine, "of_gzip") == ["done", "incomplete"]
    assert rows(engine, "SELECT count(*) FROM of_gzip") == [(2000,)]
    engine.dispose()


def test_cut_body_of_the_cache_is_incomplete(database_url: str, tmp_path: Path) -> None:
    cached = {
        "from_cache": Case(
            READS_LINES.format(path="/plain")
            + '    custom_settings = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": "cache"}\n'
        )
    }
    with RawSource() as source:
        source.answers["/plain"] = response(LINES)
        engine = run_cases(tmp_path, database_url, source.url, cached)
        project = Project(tmp_path, database_url)
        load_cases(project, engine, cached)
        assert source.requests == ["/plain"]
        [body] = tmp_path.rglob("response_body")
        body.write_bytes(cut(LINES))
        load_cases(project, engine, cached)
    assert outcomes(engine, "from_cache") == ["done", "done", "incomplete"]
    assert "is shorter than its Content-Length" in end_of(engine, "from_cache").error
    engine.dispose()


def test_truncated_response_is_not_cached(database_url: str, tmp_path: Path) -> None:
    cached = {
        "never_cached": Case(
            READS_LINES.format(path="/gzip")
            + '    custom_settings = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": "cache"}\n'
        )
    }
    with RawSource() as source:
        source.answers["/gzip"] = [
            response(cut(PACKED["gzip"]), "Content-Encoding: gzip"),
            response(PACKED["gzip"], "Content-Encoding: gzip"),
        ]
        engine = run_cases(tmp_path, database_url, source.url, cached)
        load_cases(Project(tmp_path, database_url), engine, cached)
    assert outcomes(engine, "never_cached") == ["incomplete", "done"]
    engine.dispose()


def test_cache_of_unpacked_bodies_loads(database_url: str, tmp_path: Path) -> None:
    small = b'[{"id": "a"}]'
    cached = {
        "unpacked": Case(
            """
    path = "/small"
    custom_settings = {
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_DIR": "cache",
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware": 560
        },
    }
"""
        )
    }
    with RawSource() as source:
        source.answers["/small"] = response(gzip.compress(small), "Content-Encoding: gzip")
        engine = run_cases(tmp_path, database_url, source.url, cached)
        load_cases(Project(tmp_path, database_url), engine, cached)
        assert source.requests == ["/small"]
    assert outcomes(engine, "unpacked") == ["done", "done"]
    engine.dispose()


def test_truncated_file_is_not_stored(database_url: str, tmp_path: Path) -> None:
    media = {
        "with_files": Case(
            """
    async def start(self):
        for path in ("whole.gz", "cut.gz", "plain", "endless"):
            yield {"id": path, "urls": [f"{self.base_url}/{path}"]}
"""
        )
    }
    with RawSource() as source:
        source.answers = {
            "/whole.gz": response(PACKED["gzip"]),
            "/cut.gz": response(cut(PACKED["gzip"])),
            "/plain": response(LINES),
            "/endless": response(cut(LINES), version="1.0", length=None),
        }
        engine = run_cases(
            tmp_path,
            database_url,
            source.url,
            media,
            fields=(
                "urls: list[str] = []\n    files: Annotated[list[str], FilesOf('urls')] = []\n"
            ),
        )
    assert outcomes(engine, "with_files") == ["done"]
    stored = {name for name, files in rows(engine, "SELECT id, files FROM with_files") if files}
    assert stored == {"whole.gz", "plain"}
    engine.dispose()


def test_cut_body_that_the_source_confirms_is_incomplete(database_url: str, tmp_path: Path) -> None:
    cached = {
        "revalidated": Case(
            READS_LINES.format(path="/tagged")
            + """    custom_settings = {
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_DIR": "cache",
        "HTTPCACHE_POLICY": "scrapy.extensions.httpcache.RFC2616Policy",
    }
"""
        )
    }
    with RawSource() as source:
        source.answers["/tagged"] = [
            response(LINES, 'ETag: "one"', "Cache-Control: max-age=0"),
            response(b"", 'ETag: "one"', status="304 Not Modified", length=None),
        ]
        engine = run_cases(tmp_path, database_url, source.url, cached)
        project = Project(tmp_path, database_url)
        load_cases(project, engine, cached)
        [body] = tmp_path.rglob("response_body")
        body.write_bytes(cut(LINES))
        load_cases(project, engine, cached)
        assert source.requests == ["/tagged"] * 3
    assert outcomes(engine, "revalidated") == ["done", "done", "incomplete"]
    engine.dispose()
