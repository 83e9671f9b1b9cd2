"""Server of this project on a filled database, for tests of the complete server.

The rows are those of the saved pages, so they are true to their record types.
"""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
from argon2 import PasswordHasher
from fastapi import FastAPI
from scrapy.settings import Settings
from sqlalchemy import Engine, text

import catlog_scrapy
from catlog_scrapy.api.app import create_app
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.declarations import apply, load_spiders
from catlog_scrapy.declarations.capabilities import read_capabilities
from catlog_scrapy.declarations.resources import read_resources
from catlog_scrapy.records.lookup import record_types
from catlog_scrapy.store.access.keys import add_key, revoke_key
from catlog_scrapy.store.access.users import add_user, disable_user
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, copy_format, results, starting
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.queue.schedules import changes as timetable
from tests.support.access import COST
from tests.support.executor import serving
from tests.support.postgres import Postgres
from tests.support.waiting import WAIT_LIMIT_S

PACKAGE = Path(catlog_scrapy.__file__).parent
PAGES = Path(__file__).parents[1] / "pages"
WORLD = "world"
ROLES = ("admin", "internal", "service", "user")
PASSWORD = "correct horse battery staple"
# Loads, by provider and scheme: the spiders whose saved items are the rows.
LOADED = {
    ("tatneft", "stations"): ("fuel_stations",),
    ("tatneft", "prices"): ("fuel_prices",),
    ("tatneft", "references"): ("fuel_types", "fuel_services"),
    ("hallmark_ornaments_com", "year_links"): ("hallmark_year_links",),
    ("learning", "attempts"): ("learning_attempts",),
}
EXTERNAL = """
[provider]
name = "acme"
base_url = "https://acme.example"

[[scheme]]
name = "goods"

[[scheme.operation]]
name = "goods"
executor = "external"
kind = "goods"
key = "id"
fields = { title = "text", price = "numeric" }
"""
# Beside the project's own: resources that keep a column from a role.
# An image that was kept.
PICTURE = "full/picture.png"
HIDING = """
guarded-stations = { view = "stations", key = "id", search = ["number", "address"], \
read = ["service", "user"], hidden = { address = ["user"], image_urls = ["user", "service"] } }
guarded-fuel = { view = "fuel_stations", key = "id", search = ["number", "address"], \
read = ["service", "user"], hidden = { address = ["user"] } }
"""


@dataclass
class World:
    """Content of a database: keys by name, and ids that tests need."""

    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def settings_of(folder: Path, **given: Any) -> Settings:
    """Return the project's settings for *folder*, with an external operation and hidden columns."""
    providers = folder / "providers"
    if not providers.exists():
        shutil.copytree(PACKAGE / "providers", providers)
        (providers / "acme.toml").write_text(EXTERNAL, encoding="utf-8")
        own = (PACKAGE / "resources.toml").read_text(encoding="utf-8")
        (folder / "resources.toml").write_text(own + HIDING, encoding="utf-8")
        kept = folder / "home" / "media" / PICTURE
        kept.parent.mkdir(parents=True)
        kept.write_bytes(b"picture")
    return Settings(
        {
            **DEFAULTS,
            "SPIDER_MODULES": ["catlog_scrapy.spiders"],
            "CATLOG_HOME": str(folder / "home"),
            "CATLOG_PROVIDERS": str(providers),
            "CATLOG_VIEWS": str(PACKAGE / "views"),
            "CATLOG_RESOURCES": str(folder / "resources.toml"),
            "CATLOG_PROJECT": "catlog_scrapy",
            "CATLOG_POLL": 3600.0,
            "CATLOG_GRACE": 1.0,
            "CATLOG_API_TIMEOUT": WAIT_LIMIT_S,
            **given,
        }
    )


def fill(engine: Engine, settings: Settings) -> World:
    """Insert declarations, loads in several states, and users and keys of every role."""
    apply(engine, settings)
    world = World()
    for (provider, scheme), spiders in LOADED.items():
        items = {name: saved(name) for name in spiders}
        if scheme == "year_links":
            # Of these the products are saved.
            items = {name: [i for i in items[name] if i["year"] in (1973, 2014)] for name in items}
        loaded = load(engine, settings, provider, scheme, items)
        world.ids[scheme] = str(loaded)
    products = saved("hallmark_products")
    load(engine, settings, "hallmark_ornaments_com", "products", {"hallmark_products": products})
    # A second state of each price and station, for history and the past.
    load(engine, settings, "tatneft", "prices", {"fuel_prices": raised(saved("fuel_prices"))})
    stations = [{**row, "number": row["number"] + "a"} for row in saved("fuel_stations")]
    load(engine, settings, "tatneft", "stations", {"fuel_stations": stations})
    world.ids["waiting"] = str(catalogs.create(engine, "tatneft", "prices"))
    world.ids["cancelled"] = str(catalogs.create(engine, "tatneft", "stations"))
    catalogs.cancel(engine, UUID(world.ids["cancelled"]))
    world.ids["failed"] = str(_failed(engine))
    world.ids["external"] = str(catalogs.create(engine, "acme", "goods"))
    assert starting.start(engine, UUID(world.ids["external"]))
    with engine.begin() as connection:
        found = connection.execute(
            text("SELECT id FROM catlog.catalog_scheme_operation WHERE name = 'fuel_prices'")
        )
        world.ids["operation"] = str(found.scalar_one())
    world.ids["schedule"] = str(
        timetable.create(
            engine,
            provider="tatneft",
            scheme="prices",
            name="mine",
            cron="0 * * * *",
            timezone="UTC",
            arguments={},
            catch_up="latest",
        )
    )
    cheap = PasswordHasher(**COST)
    for role in ROLES:
        add_user(engine, f"{role}-user", role, cheap.hash(PASSWORD))
        world.keys[role] = add_key(engine, f"{role}-key", role)
    add_user(engine, "disabled-user", "admin", cheap.hash(PASSWORD))
    disable_user(engine, "disabled-user")
    world.keys["revoked"] = add_key(engine, "revoked-key", "admin")
    revoke_key(engine, "revoked-key")
    world.keys["expired"] = add_key(engine, "expired-key", "admin", seconds=0.001)
    return world


def saved(spider: str) -> list[dict[str, Any]]:
    """Return the items of a spider's saved pages."""
    files = sorted((PAGES / spider).glob("*.items.json"))
    return [item for file in files for item in json.loads(file.read_text(encoding="utf-8"))]


def raised(prices: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return *prices*, each raised by one."""
    return [{**row, "price": str(int(row["price"]) + 1)} for row in prices]


def load(
    engine: Engine,
    settings: Settings,
    provider: str,
    scheme: str,
    items: Mapping[str, Sequence[Mapping[str, Any]]],
) -> UUID:
    """Create, load and publish a catalog of *items* by spider; a part gets its year's items."""
    spiders = load_spiders(settings)
    arguments = {"date": "2026-03-29"} if scheme == "attempts" else {}
    catalog = catalogs.create(engine, provider, scheme, arguments=arguments)
    assert starting.start(engine, catalog)
    while claims := claim(engine, "node", limit=100, catalogs=[catalog]):
        for claimed in claims:
            [record] = record_types(spiders.load(claimed.spider))
            year = claimed.arguments.get("year")
            mine = [
                item
                for item in items[claimed.spider]
                if year is None or str(item["release_year"]) == year
            ]
            rows = [(record.kind, *record.model_validate(item).row(), None) for item in mine]
            batch = bytearray()
            copy_format.write_rows(
                batch, copy_format.RowPrefix(claimed.attempt, claimed.provider_id), 0, rows
            )
            results.copy_batch(engine, batch)
            outcome = attempts.complete(engine, claimed.attempt, Report(accepted=len(rows)))
            assert outcome == "done", outcome
    assert publishing.publish(engine, catalog)
    return catalog


def _failed(engine: Engine) -> UUID:
    catalog = catalogs.create(engine, "tatneft", "references")
    assert starting.start(engine, catalog)
    for _ in range(100):
        claims = claim(engine, "node", catalogs=[catalog])
        if not claims:
            break
        attempts.fail(engine, claims[0].attempt, "the source is away")
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE catlog.catalog_scheme_operation_instance SET available_at = now()"
                    " WHERE catalog_id = :id"
                ),
                {"id": catalog},
            )
    return catalog


def project_app(engine: Engine, settings: Settings) -> FastAPI:
    """Return the complete application of the project."""
    capabilities = read_capabilities(settings, load_spiders(settings))
    return create_app(engine, settings, read_resources(settings), capabilities)


@dataclass
class Served:
    """Running server with its database and content."""

    engine: Engine
    port: int
    world: World
    app: FastAPI
    closing: contextlib.ExitStack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, credentials: str | None = None, **options: Any) -> httpx.Client:
        """Return a client that sends *credentials*, if any; it is closed with the server."""
        headers = {"Authorization": f"Bearer {credentials}"} if credentials else {}
        client = httpx.Client(
            base_url=self.url, headers=headers, timeout=WAIT_LIMIT_S, trust_env=False, **options
        )
        return self.closing.enter_context(client)

    def tokens(self, name: str) -> dict[str, str]:
        """Log in as a user, and return the pair of tokens."""
        said = {"username": name, "password": PASSWORD}
        answer = httpx.post(f"{self.url}/api/v1/token/", json=said, trust_env=False)
        assert answer.status_code == 200, answer.text
        pair: dict[str, str] = answer.json()
        return pair


@dataclass
class Worlds:
    """Factory of databases cloned from a filled template, and of their servers."""

    postgres: Postgres
    folder: Path
    world: World

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new clone."""
        with self.postgres.clone(WORLD) as url:
            yield url

    @contextmanager
    def serving(self, **settings: Any) -> Iterator[Served]:
        """Yield a server of a new clone, which is dropped at the end."""
        with self.database() as url, self.serving_at(url, **settings) as served:
            yield served

    @contextmanager
    def serving_at(self, url: str, **settings: Any) -> Iterator[Served]:
        """Yield a server of the database at *url*."""
        given = settings_of(self.folder, **settings)
        engine = make_engine(
            url, statement_timeout=given.getfloat("CATLOG_API_TIMEOUT"), connect_timeout=3.0
        )
        app = project_app(engine, given)
        try:
            with serving(app, **settings) as port, contextlib.ExitStack() as closing:
                yield Served(engine, port, self.world, app, closing)
        finally:
            engine.dispose()


def make_worlds(postgres: Postgres, folder: Path) -> Worlds:
    """Fill the template database once per run, and return its Worlds."""

    def fill_at(url: str) -> dict[str, Any]:
        engine = make_engine(url)
        world = fill(engine, settings_of(folder))
        engine.dispose()
        return dataclasses.asdict(world)

    settings_of(folder)
    return Worlds(postgres, folder, World(**postgres.make_template(WORLD, fill_at)))


def checksum(engine: Engine, but: Iterable[str] = ()) -> str:
    """Return a hash of all tables of the schema `catlog` that requests must not change."""
    left_out = {"audit", "login_failure", *but}
    with engine.connect() as connection:
        names = connection.execute(
            text(
                """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'catlog' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                   ORDER BY 1"""
            )
        ).scalars()
        parts = [
            f"""SELECT '{name}' AS name, md5(coalesce(string_agg(t.line, '' ORDER BY t.line), ''))
                FROM (SELECT (to_jsonb(r) - 'last_used_at')::text AS line FROM catlog.{name} r) t"""
            for name in names
            if name not in left_out
        ]
        found = connection.execute(text(" UNION ALL ".join(parts))).all()
    return orjson.dumps([tuple(row) for row in sorted(found)]).decode()


@contextmanager
def collected_log() -> Iterator[list[str]]:
    """Collect all log messages of the block, at any level, with tracebacks."""
    said: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith(("httpx", "httpcore")):
                return  # the tests' own client
            said.append(self.format(record))

    handler = Collecting(logging.DEBUG)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    with contextlib.ExitStack() as stack:
        stack.callback(root.setLevel, before)
        stack.callback(root.removeHandler, handler)
        yield said
