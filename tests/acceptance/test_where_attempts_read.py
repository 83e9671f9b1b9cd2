"""Places that an attempt may read: the web, below base_url, and its provider's kind of network."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import rows

SPIDER = """
from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key="number", view="things"):
    number: int


class Things(Spider):
    name = "things"
    record = Thing
    base_url: str = ""
    url: str = "/page"
    host: str = ""

    async def start(self):
        if self.host:
            yield Request(f"http://{self.host}/page")
        elif ":" in self.url:
            yield Request(self.url)
        else:
            yield Request(self.base_url + self.url)

    def parse(self, response):
        yield {"number": 1}
"""
PROVIDER = """
[provider]
name = "maker"
base_url = "%s"
[[scheme]]
name = "things"
[[scheme.operation]]
name = "things"
hosts = %s
"""
# Resolves the name of an inner host to an address that no machine has.
RESOLVER = """
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import succeed


class Resolver(CachingThreadedResolver):
    def getHostByName(self, name, timeout=()):
        if name == "inner.example":
            return succeed("10.255.255.1")
        return super().getHostByName(name, timeout)
"""


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as made:
        made.answers["/page"] = Answer(b"[]")
        yield made


@pytest.fixture
def project(database_url: str, tmp_path: Path, source: Source) -> Project:
    """Return the project of a provider on loopback that nobody has applied."""
    made = Project(tmp_path, database_url)
    made.write("shop/spiders/things.py", SPIDER)
    made.write("shop/resolver.py", RESOLVER)
    made.write("shop/providers/maker.toml", PROVIDER % (source.url, "[]"))
    with (tmp_path / "shop/settings.py").open("a") as settings:
        settings.write('TWISTED_DNS_RESOLVER = "shop.resolver.Resolver"\n')
    return made


def error_of_load(engine: Engine, project: Project, *arguments: str) -> str:
    """Load in one attempt, which must fail, and return its error."""
    project.scrapy("load", "maker/things", *arguments, code=None)
    found = rows(engine, "SELECT outcome, error FROM catlog.instance_attempt ORDER BY started_at")
    assert found[0][0] in ("failed", "incomplete")
    return str(found[0][1])


def fail_after_one_attempt(project: Project) -> None:
    path = project.folder / "shop/providers/maker.toml"
    path.write_text(
        path.read_text().replace('name = "things"\n[[', 'name = "things"\nmax_errors = 1\n[[')
    )


@pytest.mark.parametrize(
    "url",
    [
        "data:text/html,<page>",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "http://other.example/",
        "//other.example/",
    ],
)
def test_load_with_a_url_elsewhere_is_refused_before_it_starts(
    engine: Engine, project: Project, url: str
) -> None:
    project.scrapy("apply")
    said = project.scrapy("load", "maker/things", "-a", f"url={url}", code=2)
    assert "-a url: " in said
    assert rows(engine, "SELECT id FROM catlog.catalog") == []


def test_load_with_a_url_below_base_url_or_on_a_listed_host_is_loaded(
    engine: Engine, project: Project, source: Source
) -> None:
    with Source() as pictures:
        pictures.answers["/page"] = Answer(b"[]")
        place = pictures.url.removeprefix("http://")
        project.write("shop/providers/maker.toml", PROVIDER % (source.url, f'["{place}"]'))
        project.scrapy("apply")
        project.scrapy("load", "maker/things", "-a", f"url={source.url}/page")
        project.scrapy("load", "maker/things", "-a", f"url={pictures.url}/page")
        assert pictures.requests == ["/page"]


def test_url_that_reaches_an_attempt_is_refused_without_a_request(
    engine: Engine, project: Project, source: Source
) -> None:
    fail_after_one_attempt(project)
    project.scrapy("apply")
    with Source() as other:
        # A catalog of a former version of the declaration, or one that was made by SQL.
        rows(
            engine,
            """INSERT INTO catlog.catalog (provider_id, scheme_id, origin, arguments)
               SELECT provider_id, id, 'test', jsonb_build_object('url', CAST(:url AS text))
               FROM catlog.catalog_scheme RETURNING id""",
            url=f"{other.url}/page",
        )
        project.scrapy("work", "--drain", code=None)
        assert other.requests == []
    [(error,)] = rows(engine, "SELECT error FROM catlog.instance_attempt LIMIT 1")
    assert "the argument url" in error
    assert "hosts" in error


def test_host_that_an_argument_names_is_refused_without_a_request(
    engine: Engine, project: Project
) -> None:
    fail_after_one_attempt(project)
    project.scrapy("apply")
    with Source() as other:
        port = other.url.rpartition(":")[2]
        error = error_of_load(engine, project, "-a", f"host=localhost:{port}")
        assert other.requests == []
    assert "an argument of the load names localhost" in error


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/",
        "http://10.255.255.1:22/",
        "http://inner.example/",
        "http://0xa9fea9fe/",
    ],
)
def test_redirect_to_another_private_network_is_refused(
    engine: Engine, project: Project, source: Source, target: str
) -> None:
    fail_after_one_attempt(project)
    project.scrapy("apply")
    source.answers["/page"] = Answer(status=302, headers={"Location": target})
    assert "private network" in error_of_load(engine, project)


def test_refusal_does_not_tell_whether_a_port_answers(
    engine: Engine, project: Project, source: Source
) -> None:
    fail_after_one_attempt(project)
    project.write("shop/providers/maker.toml", PROVIDER % ("http://10.255.255.2:81", "[]"))
    fail_after_one_attempt(project)
    # Only the arguments differ; both hosts are names of this machine.
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    project.scrapy("apply")
    errors = set()
    for port in (source.url.rpartition(":")[2], str(free)):
        rows(engine, "DELETE FROM catlog.instance_attempt RETURNING 1")
        error = error_of_load(engine, project, "-a", f"url=http://10.255.255.2:81/@{port}")
        errors.add(error.replace(port, "PORT"))
    assert source.requests == []
    assert len(errors) == 1


@pytest.mark.parametrize(
    "target", ["data:text/html,page", "file:///etc/passwd", "ftp://127.0.0.1/"]
)
def test_spider_reads_only_the_web_unless_the_project_names_a_handler(
    engine: Engine, project: Project, target: str
) -> None:
    fail_after_one_attempt(project)
    spider = project.folder / "shop/spiders/things.py"
    spider.write_text(spider.read_text().replace('"/page"', repr(target), 1))
    project.scrapy("apply")
    assert "Unsupported URL scheme" in error_of_load(engine, project)
    if not target.startswith("ftp"):
        with (project.folder / "shop/settings.py").open("a") as settings:
            handler = "datauri.DataURIDownloadHandler" if "data" in target else ""
            handler = handler or "file.FileDownloadHandler"
            path = f"scrapy.core.downloader.handlers.{handler}"
            settings.write(f"DOWNLOAD_HANDLERS = {{{target.partition(':')[0]!r}: {path!r}}}\n")
        project.scrapy("load", "maker/things")


def test_apply_refuses_a_declared_url_elsewhere(project: Project, source: Source) -> None:
    declaration = PROVIDER % (source.url, "[]")
    elsewhere = f'{declaration}arguments = {{ url = "http://other.example/x" }}\n'
    project.write("shop/providers/maker.toml", elsewhere)
    said = project.scrapy("apply", code=2)
    assert "'http://other.example/x' is not below the provider's base_url" in said
    project.write("shop/providers/maker.toml", elsewhere.replace("[]", '["other.example"]'))
    project.scrapy("apply", "--check", code=None)
    project.write("shop/providers/maker.toml", declaration.replace("[]", '["http://x"]'))
    assert '"http://x" is not a valid host' in project.scrapy("apply", code=2)
