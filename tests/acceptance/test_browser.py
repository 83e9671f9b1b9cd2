"""Pages in a real browser: read completely or failed with the reason; no browser is left."""

import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.demo.samokat import SIZES
from catlog_scrapy.demo.server import DemoServer
from catlog_scrapy.store.queue import catalogs, starting
from tests.support.fleet import CONFIGURATION, NodeProcess
from tests.support.project import Project
from tests.support.waiting import rows, until

pytestmark = pytest.mark.slow

# Environment variable of all processes that a test starts, browsers included.
MARK = "BROWSERS_OF_A_TEST"
ALL = SIZES["new"] + 6
NEW = "/samokat/v2/showcases/new"
LIST = "/samokat/v2/showcases/list"
LINK = "CategoryLink_root with the text 'Что нового'"

SPIDER = """
from catlog_scrapy.spiders.sk_load_new import SkLoadNew


class Case(SkLoadNew):
    name = "{name}"
    within = {within}
    custom_settings = {settings}
"""
DECLARATION = """
[provider]
name = "{name}"
base_url = "{url}/samokat"

[[scheme]]
name = "new"
max_errors = 1
[[scheme.operation]]
name = "{name}"
{declared}
"""


@dataclass
class Case:
    """Fault of the source (a path and its reply), and the expected end of the catalog."""

    misbehaves: tuple[str, dict[str, Any]] | None = None
    error: str = ""
    within: float = 90.0
    settings: dict[str, Any] = field(default_factory=dict)
    declared: str = ""
    never_asked: str = "/nothing"


def says(old: str, new: str) -> dict[str, Any]:
    """Make the source replace *old* by *new* in its body."""

    def rewrite(body: bytes) -> bytes:
        return body.replace(old.encode(), new.encode())

    return {"rewrite": rewrite}


CASES = {
    "a_good_one": Case(never_asked="/samokat/media"),
    "slow_showcases": Case((NEW, {"delay": 1.0})),
    "a_changed_text": Case(
        (LIST, says("Что нового", "Новинки")),
        f"has no {LINK}: the markup has changed.",
        within=20,
    ),
    "a_changed_class": Case(
        ("/samokat/", says("CategoryLink_root", "MenuLink_root")),
        f"has no {LINK}: the markup has changed.",
        within=20,
    ),
    "a_link_that_does_nothing": Case(
        ("/samokat/", says("open(id);", "")),
        "requested no URL with '/v2/showcases' in it: the markup has changed.",
        within=20,
    ),
    "fewer_pages": Case(
        (NEW, says('"pages":6', '"pages":2')), "96 of 264 products were shown: the markup has"
    ),
    "renamed_prices": Case((NEW, says('"prices"', '"price"')), "48 of 264 products were"),
    "renamed_products": Case((NEW, says('"products"', '"goods"')), "KeyError: 'products'"),
    "a_list_with_500": Case((LIST, {"status": 500}), f"HTTP 500 for URL{LIST}", within=20),
    "a_list_that_is_late": Case((LIST, {"delay": 60}), "had no answer by then", within=20),
    "a_500_on_page_3": Case((f"{NEW}?page=3", {"status": 500}), f"HTTP 500 for URL{NEW}?page=3"),
    "a_429_on_page_3": Case(
        (f"{NEW}?page=3", {"status": 429, "headers": {"Retry-After": "9"}}), "HTTP 429 for"
    ),
    "a_page_that_is_cut": Case(
        (f"{NEW}?page=2", {"cut": True}), f"ERR_CONTENT_LENGTH_MISMATCH for URL{NEW}?page=2"
    ),
    "a_closed_connection": Case((f"{NEW}?page=2", {"close": True}), "ERR_EMPTY_RESPONSE for"),
    "no_json": Case((f"{NEW}?page=2", {"body": b"<html>"}), f"{NEW}?page=2 is not valid JSON"),
    "half_a_document": Case(
        (f"{NEW}?page=2", {"body": b'{"page": 2'}), f"{NEW}?page=2 is not valid JSON"
    ),
    "one_that_never_answers": Case(
        (f"{NEW}?page=6", {"delay": 600}), f"{NEW}?page=6 had no answer within 20 s", within=20
    ),
    "a_redirect": Case((f"{NEW}?page=6", {"redirect": f"{NEW}?page=6&again", "times": 1})),
    "a_page_with_500": Case(("/samokat/", {"status": 500}), "HTTP 500 for URL/samokat/"),
    "a_page_that_never_answers": Case(
        ("/samokat/", {"delay": 600}), "Timeout 20000ms exceeded", within=20
    ),
    "a_script_that_never_ends": Case(
        ("/samokat/", says("open(id);", "for (;;);")),
        "took longer than 30.0 seconds",
        settings={"DOWNLOAD_TIMEOUT": 30},
    ),
    "forbidden_by_robots_txt": Case(
        ("/robots.txt", {"body": b"User-agent: *\nDisallow: /samokat/v2/showcases/new\n"}),
        f"forbidden by robots.txt: URL{NEW}?page=1",
        settings={"ROBOTSTXT_OBEY": True},
        never_asked=NEW,
    ),
    "past_its_time_limit": Case(
        (NEW, {"delay": 600}), "ran past its time limit", within=60, declared='timeout = "30s"'
    ),
}


class Browsers:
    """Project with a spider per case, its processes and their browsers."""

    def __init__(self, folder: Path, url: str, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        # A short path, as the browser's socket in it may have at most 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
        environment = {MARK: self.mark, "TMPDIR": str(self.temporary), **environment}
        self.project = Project(folder, url, **environment)
        self.engine: Engine = make_engine(url)
        self.sources: dict[str, DemoServer] = {}

    def given(self, cases: dict[str, Case]) -> "Browsers":
        """Make and apply a spider, a declaration and a source for each case."""
        for name, case in cases.items():
            source = self.sources[name] = DemoServer().start()
            if case.misbehaves:
                source.misbehave(case.misbehaves[0], **case.misbehaves[1])
            spider = SPIDER.format(name=name, within=case.within, settings=case.settings)
            self.project.write(f"shop/spiders/{name}.py", spider)
            declaration = DECLARATION.format(name=name, url=source.url, declared=case.declared)
            self.project.write(f"shop/providers/{name}.toml", declaration)
        self.project.scrapy("apply")
        return self

    def load(self) -> None:
        """Queue a catalog of each case."""
        for name in self.sources:
            catalogs.create(self.engine, name, "new")
        starting.start_waiting(self.engine)

    def processes(self) -> list[psutil.Process]:
        """Return the running browsers and drivers."""
        found = []
        for process in psutil.process_iter():
            try:
                name = process.name()
                is_one = name.startswith(("chrom", "node", "headless_shell"))
                if is_one and process.environ().get(MARK) == self.mark:
                    found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
            except psutil.Error:
                continue
        return found

    def main_processes(self) -> set[int]:
        """Return the browsers' main processes, which a driver has started."""
        return {pid for process in self.processes() for pid in _browsers_of(process)}

    def folders(self) -> list[Path]:
        """Return the browsers' files in the temporary folder."""
        return list(self.temporary.iterdir())

    def asked(self, path: str) -> bool:
        """Return whether a source has got a request for *path*."""
        return any(one.startswith(path) for s in self.sources.values() for one in s.requests)

    def catalog(self, name: str) -> Any:
        """Return state, error and received count of a case's catalog."""
        sql = """SELECT c.state, coalesce(c.error, ''), (c.published ->> 'received')::int
                 FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
                 JOIN catlog.provider p ON p.id = s.provider_id WHERE p.name = :name"""
        return rows(self.engine, sql, name=name)[0]

    def end(self) -> None:
        """Kill all remaining processes."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    process.kill()
            except psutil.Error:
                continue
        for source in self.sources.values():
            source.stop()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.engine.dispose()


def _browsers_of(process: psutil.Process) -> set[int]:
    """Return the children of *process*, if it is a driver."""
    try:
        is_driver = process.name().startswith("node")
        return {child.pid for child in process.children()} if is_driver else set()
    except psutil.NoSuchProcess:
        return set()


@pytest.fixture
def given(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Browsers]]:
    made: list[Browsers] = []

    def make(cases: dict[str, Case], **environment: str) -> Browsers:
        made.append(Browsers(tmp_path, database_url, **environment))
        return made[-1].given(cases)

    yield make
    for browsers in made:
        browsers.end()


def test_browser_page_is_read_completely_or_fails_with_its_reason(
    given: Callable[..., Browsers],
) -> None:
    browsers = given(CASES)
    browsers.load()
    worker = browsers.project.start("work", "--drain")
    seen: set[int] = set()
    while worker.poll() is None:
        seen |= browsers.main_processes()
        time.sleep(0.2)
    out, err = worker.communicate()
    assert worker.returncode == 0, out + err
    assert "Traceback" not in err, err
    wrong = []
    for name, case in CASES.items():
        state, error, count = browsers.catalog(name)
        source = browsers.sources[name]
        said = error.replace(source.url, "URL")
        right = ("failed", True) if case.error else ("loaded", count == ALL)
        if (state, case.error in said) != (right[0], True) or not right[1]:
            wrong.append(f"{name}: {state} {count} {said}")
        if any(path.startswith(case.never_asked) for path in source.requests):
            wrong.append(f"{name} asked for {case.never_asked}")
    assert not wrong, "\n".join(wrong)
    assert len(seen) == 1, "one browser serves them all"
    until(lambda: not browsers.processes(), what=browsers.processes)
    assert browsers.folders() == []


def test_browser_ends_with_a_killed_worker(given: Callable[..., Browsers]) -> None:
    browsers = given({"late": Case((NEW, {"delay": 600}), within=60)})
    browsers.load()
    worker = browsers.project.start("work")
    until(lambda: browsers.asked(NEW))
    assert len(browsers.main_processes()) == 1
    worker.kill()
    worker.communicate()
    until(lambda: not browsers.processes(), what=browsers.processes)


def test_hung_browser_ends_with_a_killed_worker_and_driver(
    given: Callable[..., Browsers],
) -> None:
    browsers = given({"late": Case((NEW, {"delay": 600}), within=60), "other": Case()})
    catalogs.create(browsers.engine, "late", "new")
    worker = browsers.project.start("work")
    until(lambda: browsers.asked(NEW))
    found = browsers.processes()
    for process in found:
        if process.name().startswith("chrom"):
            process.suspend()
    for process in (worker, *(one for one in found if one.name().startswith("node"))):
        process.kill()
    worker.communicate()
    # A suspended process cannot end by itself; the browser's children end when they resume.
    until(lambda: not browsers.main_processes())
    for process in browsers.processes():
        process.resume()
    until(lambda: not browsers.processes(), what=browsers.processes)
    assert len([path for path in browsers.folders() if path.name.startswith("catlog")]) == 1

    browsers.project.scrapy("load", "other/new")
    assert [path for path in browsers.folders() if path.name.startswith("catlog")] == []


def test_browser_ends_with_a_killed_node_or_spider(given: Callable[..., Browsers]) -> None:
    browsers = given({"late": Case((NEW, {"delay": 600}), within=60)})
    browsers.project.write("scrapy.cfg", CONFIGURATION.format(slots=2))
    node = NodeProcess(browsers.project, "one").start()
    for victim in ("spider", "node"):
        browsers.sources["late"].visits.clear()
        browsers.load()
        until(lambda: browsers.asked(NEW), what=node.said)
        assert browsers.main_processes()
        if victim == "node":
            node.kill()
        else:
            node.spiders()[0].kill()
        until(lambda: not browsers.processes(), what=browsers.processes)


def test_cancelled_load_closes_its_browser_page(given: Callable[..., Browsers]) -> None:
    browsers = given({"late": Case((NEW, {"delay": 600}), within=60)})
    browsers.load()
    worker = browsers.project.start("work", "--drain")
    until(lambda: browsers.asked(NEW))
    began = time.monotonic()
    [(catalog,)] = rows(browsers.engine, "SELECT id::text FROM catlog.catalog")
    browsers.project.scrapy("cancel", catalog)
    out, err = worker.communicate()
    assert (worker.returncode, "Traceback" in err) == (0, False), out + err
    assert time.monotonic() - began < 300
    assert browsers.catalog("late")[0] == "cancelled"
    until(lambda: not browsers.processes(), what=browsers.processes)
    assert browsers.folders() == []


def test_killed_browser_is_started_again(given: Callable[..., Browsers]) -> None:
    browsers = given({"late": Case((NEW, {"delay": 2.0, "times": 2}), within=90)})
    browsers.load()
    worker = browsers.project.start("work", "--drain")
    until(lambda: browsers.asked(NEW))
    [browser] = browsers.main_processes()
    psutil.Process(browser).kill()
    out, err = worker.communicate()
    assert (worker.returncode, "Traceback" in err) == (0, False), out + err
    assert browsers.catalog("late") == ("loaded", "", ALL)
    until(lambda: not browsers.processes(), what=browsers.processes)
    assert browsers.folders() == []


def test_missing_browser_fails_with_the_remedy(
    given: Callable[..., Browsers], tmp_path: Path
) -> None:
    browsers = given({"without": Case()}, PATH="/nowhere", PLAYWRIGHT_BROWSERS_PATH=str(tmp_path))
    browsers.project.scrapy("load", "without/new", code=1)
    state, error, _ = browsers.catalog("without")
    assert state == "failed"
    assert (
        "ConfigurationError: this machine has no Chromium; install it with"
        " `playwright install chromium` or `apt-get install chromium`"
    ) in error
    until(lambda: not browsers.processes(), what=browsers.processes)
    assert browsers.folders() == []


def test_a_project_without_browser_spiders_does_not_import_playwright() -> None:
    script = (
        "import sys; from catlog_scrapy.spiders import sk_load_new;"
        "print([name for name in sys.modules if 'playwright' in name])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert said.stdout == b"[]\n"
