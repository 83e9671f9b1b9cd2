"""scrapy apply: frozen versions, changes in place, retirement, and views."""

import contextlib
import datetime as dt
import itertools
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from scrapy.settings import Settings
from sqlalchemy import Engine, event, exc, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.declarations import apply
from catlog_scrapy.exceptions import DeclarationError, NotPossible
from catlog_scrapy.records.sql_names import MAX_FIELDS
from catlog_scrapy.store import lock_timeouts
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import starting
from catlog_scrapy.store.record_tables import indexes
from catlog_scrapy.store.record_tables.layout import record_tables, stored_columns
from catlog_scrapy.store.schemes import all_kinds, stored_providers
from catlog_scrapy.store.views.applying import dry_run_views
from catlog_scrapy.store.views.naming import VIEW_COMMENT
from catlog_scrapy.store.views.plan import PlannedView, ViewPlan
from tests.support.factories import (
    at_once,
    claim_of,
    given_a_catalog,
    given_a_record,
    given_a_waiting_catalog,
    load_records,
    one,
    send_records,
    sql,
    state_of,
)

_packages = itertools.count(1)

SPIDERS = """
import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

from catlog_scrapy.records import Record
from scrapy import Spider


class Good(Record, key="id", view="goods"{options}):
    id: str
    {fields}


class Goods(Spider):
    name = "goods"
    record = Good
    year: str = ""


class MoreGoods(Goods):
    name = "more_goods"


class Link(Record, key="id", view="links"):
    id: str
    year: int


class Links(Spider):
    name = "links"
    record = Link


class Foreign(Spider):
    name = "foreign"
"""

PROVIDER = """
[provider]
name = "acme"
title = "Acme"
base_url = "http://127.0.0.1:1/acme"
"""
SCHEME = """
[[scheme]]
name = "goods"
version = {version}
operations = ["goods"]
"""
SCHEDULE = """
[[schedule]]
name = "every hour"
scheme = "goods"
cron = "{cron}"
"""
DATA = {"id": "a", "price": "1.50", "number": 3}


class Shop:
    """Files of a project, and its database."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self.engine = engine
        self.package = ""
        (folder / "providers").mkdir()
        (folder / "views").mkdir()
        self.given_resources("")
        self.declare(SCHEME.format(version=1))
        self.given_fields("price: Decimal | None = None")

    def given_fields(self, *fields: str, options: str = "") -> None:
        """Write the record type of goods to a new package, since Python imports a module once."""
        self.package = f"shop_of_goods_{next(_packages)}"
        package = self.folder / self.package
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "spiders.py").write_text(
            SPIDERS.format(fields="\n    ".join(fields), options=options and f", {options}")
        )

    def declare(self, *tables: str, provider: str = PROVIDER, name: str = "acme") -> None:
        """Write the provider's file."""
        (self.folder / "providers" / f"{name}.toml").write_text(provider + "".join(tables))

    def given_view(self, name: str, select: str) -> None:
        (self.folder / "views" / f"{name}.sql").write_text(textwrap.dedent(select))

    def given_resources(self, toml: str) -> None:
        (self.folder / "resources.toml").write_text(textwrap.dedent(toml))

    def apply(self, *, check: bool = False) -> list[str]:
        """Return the lines that apply prints."""
        settings = Settings(
            {
                "SPIDER_MODULES": [f"{self.package}.spiders"],
                "CATLOG_PROVIDERS": str(self.folder / "providers"),
                "CATLOG_VIEWS": str(self.folder / "views"),
                "CATLOG_RESOURCES": str(self.folder / "resources.toml"),
            }
        )
        return [str(change) for change in apply(self.engine, settings, check_only=check)]

    def refused(self) -> str:
        """Return the error of apply, which must change nothing."""
        before = self.everything()
        with pytest.raises(DeclarationError) as caught:
            self.apply()
        assert self.everything() == before
        return str(caught.value)

    def everything(self) -> list[Any]:
        """Return all declared rows, and all views with their identity."""
        tables = ("provider", "catalog_scheme", "catalog_scheme_operation", "kind", "schedule")
        return [
            *(sql(self.engine, f"SELECT * FROM catlog.{table} ORDER BY id") for table in tables),
            sql(
                self.engine,
                """SELECT c.oid, c.xmin::text, relname, pg_get_viewdef(c.oid) FROM pg_class c
                   WHERE relnamespace = 'public'::regnamespace ORDER BY 1""",
            ),
        ]

    def use(self, version: int = 1, scheme: str = "goods") -> UUID:
        """Create a catalog of a version."""
        return given_a_waiting_catalog(self.engine, scheme=scheme, version=version)

    def add(
        self,
        data: dict[str, Any],
        *,
        kind: str = "goods",
        former: dict[str, Any] | None = None,
        removed: bool = False,
    ) -> None:
        """Insert a record and its former state."""
        given_a_record(self.engine, kind, data, former=former, removed=removed)

    def columns(self, view: str) -> dict[str, str]:
        """Return a view's columns with their types, in order."""
        found = sql(
            self.engine,
            """SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
               WHERE attrelid = CAST(:view AS regclass) AND attnum > 0 ORDER BY attnum""",
            view=f"public.{view}",
        )
        return {column["attname"]: column["type"] for column in found}

    def next_due(self) -> dt.datetime | None:
        due: dt.datetime | None = one(self.engine, "SELECT next_due_at FROM catlog.schedule")
        return due


@pytest.fixture
def shop(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(lock_timeouts, "LOCK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(lock_timeouts, "RETRY_PAUSE_S", 0.01)
    return Shop(tmp_path, engine)


def test_declarations_are_stored_once(shop: Shop) -> None:
    shop.declare(SCHEME.format(version=1), SCHEDULE.format(cron="0 * * * *"))
    lines = [
        "+ provider acme",
        "+ scheme acme/goods 1",
        "+ schedule acme/goods 'every hour': 0 * * * * UTC",
        "+ view goods",
        "+ view goods_history",
    ]
    assert shop.apply(check=True) == lines
    assert sql(shop.engine, "SELECT * FROM catlog.provider") == []
    assert shop.apply() == lines
    before = shop.everything()
    assert shop.apply() == shop.apply(check=True) == []
    assert shop.everything() == before
    assert sql(
        shop.engine,
        "SELECT name, spider, mode, timeout, for_each FROM catlog.catalog_scheme_operation",
    ) == [
        {
            "name": "goods",
            "spider": "goods",
            "mode": "snapshot",
            "timeout": 3600.0,
            "for_each": None,
        }
    ]
    assert one(shop.engine, "SELECT for_each IS NULL FROM catlog.catalog_scheme_operation")


def test_stored_providers_are_read_in_five_statements(shop: Shop) -> None:
    links = '[[scheme]]\nname = "links"\noperations = ["links"]\n'
    shop.declare(SCHEME.format(version=1), links, SCHEDULE.format(cron="0 * * * *"))
    shop.apply()
    statements: list[str] = []
    with shop.engine.connect() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *given: statements.append(given[2])
        )
        [provider] = stored_providers(connection)
    assert [scheme.name for scheme in provider.schemes] == ["goods", "links"]
    assert len(statements) == 5


def test_order_of_names_is_not_a_change(shop: Shop) -> None:
    operations = "".join(
        f'[[scheme.operation]]\nname = "{name}"\nexecutor = "external"\n'
        f'kind = "{kind}"\nkey = "id"\n'
        for name, kind in (("a-b", "k_1"), ("aa", "k1"), ("B", "k2"), ("ab", "k_2"), ("é", "k3"))
    )
    shop.declare('[[scheme]]\nname = "outside"\n', operations)
    shop.apply()
    shop.use(scheme="outside")
    assert shop.apply() == []


OPERATION = '[[scheme.operation]]\nname = "goods"\n'
FROZEN = {
    "arguments": OPERATION + 'arguments = { year = "1" }',
    "mode": OPERATION + 'mode = "incremental"',
    "for_each": OPERATION + 'for_each = ["a"]',
    "standalone_arguments": OPERATION + 'for_each = ["a"]\nstandalone_arguments = ["year"]',
    "spider": OPERATION + 'spider = "more_goods"',
    "executor": OPERATION + 'executor = "external"\nkind = "goods"\nkey = "id"',
    "the set of operations": 'operations = ["goods", "links"]',
}


@pytest.mark.parametrize("what", FROZEN)
def test_a_used_version_is_frozen(shop: Shop, what: str) -> None:
    shop.apply()
    shop.use()
    shop.declare(f'[[scheme]]\nname = "goods"\n{FROZEN[what]}\n')
    message = shop.refused()
    assert "providers/acme.toml:" in message
    assert 'scheme "goods"' in message
    assert f"{what} changed, but catalogs use version 1; write version = 2" in message
    shop.declare(f'[[scheme]]\nname = "goods"\nversion = 2\n{FROZEN[what]}\n')
    lines = shop.apply()
    assert lines[:2] == ["+ scheme acme/goods 2", "- scheme acme/goods 1: retired"]


def test_an_unused_version_may_change(shop: Shop) -> None:
    shop.apply()
    shop.declare('[[scheme]]\nname = "goods"\noperations = ["links"]\n')
    assert shop.apply() == [
        "+ operation acme/goods/links",
        "- operation acme/goods/goods",
        "+ view links",
        "+ view links_history",
        "- view goods",
        "- view goods_history",
    ]
    assert shop.apply() == []
    with shop.engine.connect() as connection:
        assert set(record_tables(connection)) == {"links", "links_versions"}


def test_an_unused_version_may_have_another_key(shop: Shop) -> None:
    table = (
        '[[scheme]]\nname = "x"\n[[scheme.operation]]\nname = "foreign"\n'
        'kind = "k"\nkey = "{key}"\n'
    )
    shop.declare(table.format(key="a"))
    shop.apply()
    shop.declare(table.format(key="b"))
    assert "~ operation acme/x/foreign: record types" in shop.apply()
    shop.use(scheme="x")
    shop.declare(table.format(key="c").replace('"x"', '"x"\nversion = 2'))
    assert 'the key of "k" changed from b to c; give the record type another view' in shop.refused()


def test_record_types_and_includes_are_frozen(shop: Shop) -> None:
    every = '[[scheme]]\nname = "every"\nincludes = [{names}]\n'
    links = '[[scheme]]\nname = "links"\noperations = ["links"]\n'
    shop.declare(SCHEME.format(version=1), links, every.format(names='"goods", "links"'))
    shop.apply()
    shop.use()
    shop.use(scheme="every")
    shop.given_fields("price: Decimal | None = None", "number: int | None = None")
    shop.declare(SCHEME.format(version=1), links, every.format(names='"goods"'))
    message = shop.refused()
    assert 'scheme "goods" operation "goods": record types changed' in message
    assert 'scheme "every": includes changed, but catalogs use version 1' in message


@pytest.mark.parametrize(("former", "new"), [("1", "1.0"), ("1.0", "1"), ("0", "0.0")])
def test_count_that_becomes_a_share_is_a_change(shop: Shop, former: str, new: str) -> None:
    shop.declare(f'[[scheme]]\nname = "goods"\n{OPERATION}tolerate.removed = {former}\n')
    shop.apply()
    shop.use()
    shop.declare(f'[[scheme]]\nname = "goods"\n{OPERATION}tolerate.removed = {new}\n')
    assert shop.apply() == [
        f"~ operation acme/goods/goods: tolerate {{'removed': {former}}} -> {{'removed': {new}}}"
    ]
    stored = "SELECT tolerate ->> 'removed' FROM catlog.catalog_scheme_operation"
    assert one(shop.engine, stored) == new
    assert shop.apply() == []


def test_tags_change_in_place_and_workers_look_at_the_queue_again(shop: Shop) -> None:
    revision = "SELECT tags_revision FROM catlog.provider"
    shop.apply()
    assert one(shop.engine, revision) == 0
    given_a_catalog(shop.engine)
    for tags, expected in (('["browser"]', 1), ('["ru", "browser"]', 2), ("[]", 3)):
        scheme = f'[[scheme]]\nname = "goods"\n{OPERATION}tags = {tags}\n'
        shop.declare(scheme)
        assert shop.apply()[0].startswith("~ operation acme/goods/goods: tags ")
        assert one(shop.engine, revision) == expected
        shop.declare(scheme, SCHEDULE.format(cron=f"{expected} * * * *"))
        shop.apply()
        assert one(shop.engine, revision) == expected


def test_limits_and_times_change_in_place(shop: Shop) -> None:
    shop.apply()
    shop.use()
    shop.declare(
        """
        [[scheme]]
        name = "goods"
        max_errors = 2
        [[scheme.operation]]
        name = "goods"
        timeout = "5m"
        start_timeout = "10s"
        stall_timeout = "1m"
        keep = "90d"
        isolate = true
        min_results = 7
        backoff = { base = "1s", cap = "1m" }
        tolerate = { rejected = 0.1, failed_requests = 3 }
        """,
        provider=PROVIDER.replace('"Acme"', '"The Acme"'),
    )
    assert shop.apply() == [
        "~ provider acme: title Acme -> The Acme",
        "~ scheme acme/goods 1: max_errors 5 -> 2",
        "~ operation acme/goods/goods: isolate False -> True",
        "~ operation acme/goods/goods: tolerate {} -> {'rejected': 0.1, 'failed_requests': 3}",
        "~ operation acme/goods/goods: min_results 1 -> 7",
        "~ operation acme/goods/goods: timeout 3600.0 -> 300.0",
        "~ operation acme/goods/goods: start_timeout 120.0 -> 10.0",
        "~ operation acme/goods/goods: stall_timeout 600.0 -> 60.0",
        "~ operation acme/goods/goods: backoff_base 10.0 -> 1.0",
        "~ operation acme/goods/goods: backoff_cap 600.0 -> 60.0",
        "~ operation acme/goods/goods: keep none -> 7776000.0",
    ]
    assert shop.apply() == []


def test_lower_scheme_version_is_refused(shop: Shop) -> None:
    shop.apply()
    shop.declare(SCHEME.format(version=3))
    assert shop.apply() == ["+ scheme acme/goods 3", "- scheme acme/goods 1: retired"]
    shop.declare(SCHEME.format(version=2))
    assert "version 2 is older than version 3" in shop.refused()
    versions = "SELECT version, retired_at IS NULL AS live FROM catlog.catalog_scheme ORDER BY 1"
    assert sql(shop.engine, versions) == [
        {"version": 1, "live": False},
        {"version": 3, "live": True},
    ]


def test_vanished_declarations_are_retired_and_may_come_back(shop: Shop) -> None:
    both = (SCHEME.format(version=1), SCHEDULE.format(cron="0 * * * *"))
    shop.declare(*both)
    shop.apply()
    identity = one(shop.engine, "SELECT id FROM catlog.schedule")
    shop.add(DATA)
    shop.declare()
    assert shop.apply() == [
        "- scheme acme/goods 1",
        "- schedule acme/goods 'every hour': disabled, its history stays",
    ]
    assert shop.apply() == []
    assert one(shop.engine, "SELECT id FROM public.goods") == "a"
    assert one(shop.engine, "SELECT count(*) FROM catlog.schedule WHERE enabled") == 0
    shop.declare(*both)
    assert shop.apply() == [
        "+ scheme acme/goods 1: active again",
        "+ schedule acme/goods 'every hour': 0 * * * * UTC",
    ]
    (shop.folder / "providers" / "acme.toml").unlink()
    assert shop.apply() == ["- provider acme: no file declares it"]
    assert shop.apply() == []
    assert one(shop.engine, "SELECT count(*) FROM catlog.schedule WHERE enabled") == 0
    shop.declare(*both)
    assert len(shop.apply()) == 2
    assert one(shop.engine, "SELECT id FROM catlog.schedule WHERE enabled") == identity


def test_a_schedule_keeps_its_next_due_time_until_its_line_changes(shop: Shop) -> None:
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    shop.declare(SCHEME.format(version=1), SCHEDULE.format(cron="0 * * * *"))
    shop.apply()
    assert shop.next_due() > dt.datetime.now(dt.UTC)  # type: ignore[operator]
    sql(shop.engine, "UPDATE catlog.schedule SET next_due_at = :at", at=long_ago)
    shop.declare(SCHEME.format(version=2), SCHEDULE.format(cron="0 * * * *"), 'catch_up = "none"')
    assert "~ schedule acme/goods 'every hour': catch_up latest -> none" in shop.apply()
    assert shop.next_due() == long_ago
    for line in ("cron", "timezone", "enabled"):
        changed = {
            "cron": SCHEDULE.format(cron="5 * * * *"),
            "timezone": SCHEDULE.format(cron="5 * * * *") + 'timezone = "Asia/Kolkata"',
            "enabled": SCHEDULE.format(cron="5 * * * *") + "enabled = false",
        }[line]
        sql(shop.engine, "UPDATE catlog.schedule SET next_due_at = :at", at=long_ago)
        shop.declare(SCHEME.format(version=2), changed)
        shop.apply()
        assert shop.next_due() != long_ago
    assert shop.next_due() is None


def test_view_of_a_kind_shows_typed_records(shop: Shop) -> None:
    shop.given_fields(
        "price: Decimal | None = None",
        "number: int | None = None",
        "share: float | None = None",
        "sold: bool | None = None",
        "day: dt.date | None = None",
        "at: dt.datetime | None = None",
        "clock: dt.time | None = None",
        "took: dt.timedelta | None = None",
        "uid: UUID | None = None",
        "order: str | None = None",
        "removed_at: dt.date | None = None",
        "extra: Any = None",
        "words: list[str] | None = None",
    )
    shop.apply()
    shop.add(
        {
            "id": "full",
            "price": "1.50",
            "number": 9223372036854775807,
            "share": 1e-5,
            "sold": False,
            "day": "2026-02-03",
            "at": "2026-02-03T04:05:06+03:00",
            "clock": "04:05:06",
            "took": -90.5,
            "uid": "00000000-0000-0000-0000-000000000001",
            "order": "100% :x",
            "removed_at": "2026-04-05",
            "extra": {"a": [1]},
            "words": ["b"],
        }
    )
    shop.add({"id": "nulls", "number": None, "extra": None, "words": None, "took": None})
    shop.add({"id": "missing"})
    shop.add({"id": "removed"}, removed=True)
    assert shop.columns("goods") == {
        "id": "text",
        "price": "numeric",
        "number": "bigint",
        "share": "double precision",
        "sold": "boolean",
        "day": "date",
        "at": "timestamp with time zone",
        "clock": "time without time zone",
        "took": "interval",
        "uid": "uuid",
        "order": "text",
        "removed_at": "date",
        "extra": "jsonb",
        "words": "jsonb",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "provider": "text",
    }
    full, missing, nulls = sql(shop.engine, "SELECT * FROM public.goods ORDER BY id")
    assert str(full.pop("price")) == "1.50"
    assert str(full.pop("uid")).endswith("1")
    assert full == {
        "id": "full",
        "number": 9223372036854775807,
        "share": 1e-5,
        "sold": False,
        "day": dt.date(2026, 2, 3),
        "at": dt.datetime(2026, 2, 3, 1, 5, 6, tzinfo=dt.UTC),
        "clock": dt.time(4, 5, 6),
        "took": dt.timedelta(seconds=-90.5),
        "order": "100% :x",
        "removed_at": dt.date(2026, 4, 5),
        "extra": {"a": [1]},
        "words": ["b"],
        "created_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "updated_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "provider": "acme",
    }
    added = ("created_at", "updated_at", "provider")
    empty = {name: None for name in full if name not in ("id", *added)}
    for given in (missing, nulls):
        assert empty.items() <= given.items()
    assert one(shop.engine, "SELECT count(*) FROM public.goods WHERE extra IS NULL") == 2


def test_history_view_shows_every_state(shop: Shop) -> None:
    shop.apply()
    shop.add({"id": "a", "price": "2"}, former={"id": "a", "price": "1"})
    shop.add({"id": "b", "price": "5"}, removed=True)
    assert list(shop.columns("goods_history")) == [
        "id",
        "price",
        "valid_from",
        "valid_to",
        "change",
        "provider",
    ]
    states = sql(
        shop.engine,
        """SELECT id, price::text, valid_from::date::text, valid_to::date::text, change
           FROM public.goods_history ORDER BY valid_from""",
    )
    assert [list(state.values()) for state in states] == [
        ["a", "1", "2026-01-01", "2026-01-02", "changed"],
        ["a", "2", "2026-01-02", None, None],
    ]


def test_views_tell_the_records_of_several_providers_apart(shop: Shop) -> None:
    shop.declare(provider='[provider]\nname = "other"\n', name="other")
    shop.apply()
    shop.add({"id": "a", "price": "2"}, former={"id": "a", "price": "1"})
    given_a_record(shop.engine, "goods", {"id": "a", "price": "3"}, provider="other")
    for view, expected in {
        "public.goods": [("acme", 2), ("other", 3)],
        "public.goods_history": [("acme", 1), ("acme", 2), ("other", 3)],
        "as_of.goods": [("acme", 2), ("other", 3)],
    }.items():
        found = sql(shop.engine, f"SELECT provider, price FROM {view} ORDER BY 1, 2")
        assert [(row["provider"], row["price"]) for row in found] == expected


def test_field_named_provider_stays_the_kinds_own(shop: Shop) -> None:
    shop.given_fields("provider: str | None = None")
    shop.apply()
    shop.add({"id": "a", "provider": "a bank"})
    assert list(shop.columns("goods")) == ["id", "provider", "created_at", "updated_at"]
    assert one(shop.engine, "SELECT provider FROM public.goods") == "a bank"


def test_foreign_kind_shows_all_its_data(shop: Shop) -> None:
    shop.declare(
        '[[scheme]]\nname = "x"\n[[scheme.operation]]\nname = "foreign"\nkind = "things"\n'
        'key = "id"\nfields = { n = "bigint" }\n'
    )
    shop.apply()
    shop.add({"id": "a", "n": 1, "more": 2}, kind="things")
    assert list(shop.columns("things")) == [
        "id",
        "n",
        "data",
        "created_at",
        "updated_at",
        "provider",
    ]
    assert list(shop.columns("things_history"))[:3] == ["id", "n", "data"]
    assert one(shop.engine, "SELECT data FROM public.things") == {"more": 2}


def test_record_tables_have_typed_columns_then_narrow_ones(shop: Shop) -> None:
    shop.given_fields("price: Decimal | None = None")
    shop.apply()
    assert table_columns(shop, "goods") == {
        "id": "text",
        "price": "numeric",
        "_id": "uuid",
        "_hash": "uuid",
        "_provider": "integer",
        "_scope": "integer",
        "_catalog": "bigint",
        "_part": "text",
        "_as_of": "timestamp with time zone",
        "_created_at": "timestamp with time zone",
        "_updated_at": "timestamp with time zone",
        "_removed_at": "timestamp with time zone",
        "_read_at": "timestamp with time zone",
    }
    assert list(table_columns(shop, "goods_versions"))[2:] == [
        "_id",
        "_provider",
        "_catalog",
        "_valid_from",
        "_valid_to",
        "_change",
    ]


def table_columns(shop: Shop, table: str) -> dict[str, str]:
    found = sql(
        shop.engine,
        """SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
           WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
           ORDER BY attnum""",
        table=f"records.{table}",
    )
    return {column["attname"]: column["type"] for column in found}


def test_all_records_can_be_read_at_once(shop: Shop) -> None:
    links = '[[scheme]]\nname = "links"\noperations = ["links"]\n'
    foreign = (
        '[[scheme]]\nname = "x"\n[[scheme.operation]]\nname = "foreign"\nkind = "things"\n'
        'key = ["id", "n"]\nfields = { n = "bigint" }\n'
    )
    shop.declare(SCHEME.format(version=1), links, foreign)
    shop.apply()
    shop.add({"id": "a", "price": "1.50"}, former={"id": "a", "price": None})
    shop.add({"id": "b", "year": 1}, kind="links", removed=True)
    shop.add({"id": "c", "n": 2, "more": [3]}, kind="things")
    records = (
        "SELECT kind, provider, key, data, removed_at IS NULL AS current FROM catlog.records({})"
    )
    goods = ["goods", "acme", "a", {"id": "a", "price": 1.5}, True]
    assert [list(found.values()) for found in sql(shop.engine, records.format(""))] == [
        goods,
        ["links", "acme", "b", {"id": "b", "year": 1}, False],
        ["things", "acme", '["c",2]', {"id": "c", "n": 2, "more": [3]}, True],
    ]
    found = sql(shop.engine, records.format("ARRAY['goods', 'former']"))
    assert [list(state.values()) for state in found] == [goods]
    [version] = sql(shop.engine, "SELECT * FROM catlog.record_versions()")
    assert (version["kind"], version["key"], version["change"]) == ("goods", "a", "changed")
    assert version["data"] == {"id": "a", "price": None}


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE public.goods (x int)",
        "CREATE VIEW public.goods_history AS SELECT 1 AS x",
        "CREATE SEQUENCE public.goods",
        "CREATE DOMAIN public.goods AS text",
        "CREATE MATERIALIZED VIEW public.report AS SELECT 1 AS x",
    ],
)
def test_foreign_tables_and_views_are_not_touched(shop: Shop, made: str) -> None:
    shop.given_view("report", "SELECT id FROM goods")
    sql(shop.engine, made)
    assert "exists and was not created by catlog; rename it" in shop.refused()


def test_project_view_with_the_name_of_a_former_kind_is_refused(shop: Shop) -> None:
    shop.declare('[[scheme]]\nname = "links"\noperations = ["links"]\n')
    shop.apply()
    shop.declare()
    shop.given_view("links", "SELECT 1 AS n")
    assert 'views/links.sql: a former kind has the view "links"; rename' in shop.refused()


def test_apply_names_the_privilege_that_the_role_lacks(shop: Shop) -> None:
    owner = shop.engine
    sql(owner, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    sql(owner, "CREATE ROLE poor_role LOGIN")
    try:
        sql(owner, "GRANT ALL ON SCHEMA catlog TO poor_role")
        sql(owner, "GRANT ALL ON ALL TABLES IN SCHEMA catlog TO poor_role")
        shop.engine = make_engine(owner.url.set(username="poor_role").render_as_string())
        assert "permission denied for schema records; this role must own" in shop.refused()
        sql(owner, "GRANT ALL ON SCHEMA records TO poor_role")
        assert "permission denied for schema public; this role must own it" in shop.refused()
    finally:
        shop.engine.dispose()
        sql(owner, "REASSIGN OWNED BY poor_role TO catlog")
        sql(owner, "DROP OWNED BY poor_role")
        sql(owner, "DROP ROLE poor_role")


def test_project_views_read_kinds_and_each_other(shop: Shop) -> None:
    shop.given_view("a_first", "SELECT id || '%' AS id, ':x' AS x FROM z_last; -- the end")
    shop.given_view("z_last", "SELECT id FROM goods -- of today")
    assert shop.apply()[-4:] == [
        "+ view goods",
        "+ view goods_history",
        "+ view a_first",
        "+ view z_last",
    ]
    shop.add(DATA)
    assert sql(shop.engine, "SELECT * FROM public.a_first") == [{"id": "a%", "x": ":x"}]
    assert shop.apply() == []
    shop.given_view("z_last", "SELECT 'b' AS id")
    assert shop.apply() == ["~ view z_last"]
    assert one(shop.engine, "SELECT id FROM public.a_first") == "b%"
    (shop.folder / "views" / "z_last.sql").unlink()
    assert 'the view "z_last" is to be dropped, but views/a_first.sql reads it' in shop.refused()
    (shop.folder / "views" / "a_first.sql").unlink()
    assert shop.apply() == ["- view a_first", "- view z_last"]


@pytest.mark.parametrize(
    ("select", "told"),
    [
        (
            "SELECT id,\n  nothing\nFROM goods",
            'views/report.sql:2: column "nothing" does not exist',
        ),
        ("SELEC 1", 'views/report.sql:1: syntax error at or near "SELEC"; correct its SELECT'),
        ("SELECT 'x'::int AS n", "views/report.sql:1: invalid input syntax for type integer"),
        ("WITH x AS (SELECT 1) SELECT * FROM reports", 'relation "reports" does not exist'),
        ("DELETE FROM catlog.provider", "syntax error"),
        ("SELECT 1 AS a;\nDROP VIEW goods", "views/report.sql:2: the file has a second statement"),
    ],
)
def test_a_bad_select_is_refused_before_anything_changes(
    shop: Shop, select: str, told: str
) -> None:
    shop.given_view("report", select)
    assert told in shop.refused()
    shop.given_view("report", "SELECT 1 AS n")
    shop.apply()
    shop.declare(SCHEME.format(version=2))
    shop.given_view("report", select)
    assert told in shop.refused()


@pytest.mark.parametrize(
    "select",
    [
        "SELECT 1 AS n; CREATE TABLE pwned (n int)",
        "SELECT 1 AS foo$a$; CREATE TABLE pwned (n int); SELECT 1 AS b$a$",
        r"SELECT 'a\' AS n; CREATE TABLE pwned (n int) -- '",
        r"SELECT U&'a\' AS n; CREATE TABLE pwned (n int) -- '",
        "SELECT /* /* */ 1 */ 2 AS n; CREATE TABLE pwned (n int)",
        "SELECT 1 AS n; COMMIT; CREATE TABLE pwned (n int)",
        "SELECT 1 AS n; CREATE TABLE pwned (n int); SELECT * FROM pwned",
        "SELECT 1 AS n; DO $$ BEGIN CREATE TABLE pwned (n int); END $$",
    ],
)
def test_statement_behind_the_select_of_a_view_never_runs(shop: Shop, select: str) -> None:
    shop.given_view("report", select)
    assert "the file has a second statement; keep one SELECT" in shop.refused()
    # PostgreSQL refuses the text by itself, whatever catlog's scanner has found in it.
    plan = ViewPlan(
        {"report": PlannedView(select, VIEW_COMMENT, file="views/report.sql")},
        frozenset(),
        ("report",),
        (),
    )
    with shop.engine.connect() as connection, pytest.raises(DeclarationError) as refused:
        dry_run_views(connection, plan)
    assert "views/report.sql" in str(refused.value)
    assert one(shop.engine, "SELECT to_regclass('public.pwned')") is None


def test_views_that_read_themselves_are_refused(shop: Shop) -> None:
    shop.given_view("a", "SELECT 1 AS n")
    shop.given_view("b", "SELECT n FROM a")
    shop.apply()
    shop.given_view("a", "SELECT n FROM b")
    assert "views/a.sql: infinite recursion detected" in shop.refused()


def test_new_field_replaces_views_that_read_the_kind(shop: Shop) -> None:
    shop.given_view("report", "SELECT * FROM goods")
    shop.given_view("total", "SELECT count(price) AS n FROM report")
    shop.apply()
    shop.use()
    sql(shop.engine, "CREATE ROLE analyst_of_goods")
    try:
        sql(shop.engine, "GRANT SELECT ON public.goods TO analyst_of_goods WITH GRANT OPTION")
        sql(shop.engine, "GRANT SELECT ON public.total TO PUBLIC")
        shop.given_fields("number: int | None = None", "price: str | None = None")
        shop.declare(SCHEME.format(version=2))
        assert "~ view goods" in shop.apply()
        assert shop.columns("report")["number"] == "bigint"
        assert shop.columns("report")["price"] == "text"
        grants = "SELECT has_table_privilege('analyst_of_goods', :view, :privilege)"
        assert one(shop.engine, grants, view="public.goods", privilege="SELECT WITH GRANT OPTION")
        assert one(shop.engine, grants, view="public.total", privilege="SELECT")
        assert not one(shop.engine, grants, view="public.report", privilege="SELECT")
        assert shop.apply() == []
    finally:
        sql(shop.engine, "DROP OWNED BY analyst_of_goods")
        sql(shop.engine, "DROP ROLE analyst_of_goods")


def test_dependent_views_change_together_with_their_sources(shop: Shop) -> None:
    shop.given_fields("number: int | None = None", "price: str | None = None")
    shop.given_view("report", "SELECT id, number, price FROM goods")
    shop.given_view("total", "SELECT sum(number) AS n FROM report")
    shop.apply()
    shop.given_fields("amount: int | None = None", "price: str | None = None")
    assert 'column "number" does not exist' in shop.refused()
    shop.given_view("report", "SELECT amount AS number, id FROM extra JOIN goods USING (id, price)")
    shop.given_view("extra", "SELECT id, price FROM goods")
    assert shop.apply()[-4:] == [
        "~ view goods",
        "~ view goods_history",
        "+ view extra",
        "~ view report",
    ]
    assert list(shop.columns("report")) == ["number", "id"]
    assert list(shop.columns("total")) == ["n"]
    assert shop.apply() == []


@pytest.mark.parametrize(
    "reader",
    [
        "CREATE VIEW public.mine AS SELECT price FROM public.goods",
        "CREATE MATERIALIZED VIEW catlog.mine AS SELECT price FROM public.goods",
        "CREATE FUNCTION public.mine() RETURNS bigint RETURN (SELECT count(price) FROM goods)",
        "CREATE TABLE public.mine (of public.goods)",
    ],
)
def test_foreign_dependents_of_a_changed_view_are_refused(shop: Shop, reader: str) -> None:
    shop.apply()
    shop.use()
    sql(shop.engine, reader)
    shop.given_fields("price: str | None = None")
    shop.declare(SCHEME.format(version=2))
    message = shop.refused()
    assert 'the view "goods" has to be replaced, but' in message
    assert "mine" in message and "drop what reads it" in message


def test_field_types_change_where_every_value_converts(shop: Shop) -> None:
    shop.given_fields("n: int | None = None", "t: str | None = None", "j: list[str] = []")
    shop.apply()
    shop.use()
    shop.given_view("report", "SELECT id, n FROM goods")
    shop.apply()
    shop.add({"id": "a", "n": 12, "t": "7", "j": ["y"]}, former={"id": "a", "n": 11, "t": "x"})
    shop.add({"id": "b", "n": 2**53 + 1, "t": None})
    shop.given_fields("n: int | None = None", "t: int | None = None", "j: list[str] = []")
    shop.declare(SCHEME.format(version=2))
    assert (
        'the field "t" of "goods" changed from text to bigint, but a former state of a has \'x\';'
        " give the field another name, or the record type another view"
    ) in shop.refused()
    sql(shop.engine, "UPDATE records.goods_versions SET t = '6'")
    lines = shop.apply(check=True)
    assert "~ column goods.t: text -> bigint" in lines
    assert shop.columns("goods")["t"] == "text"
    assert shop.apply() == lines
    assert shop.columns("goods")["t"] == "bigint"
    assert [state["t"] for state in sql(shop.engine, "SELECT t FROM goods_history")] == [6, 7, None]
    shop.given_fields("n: float | None = None", "t: int | None = None", "j: str = ''")
    shop.declare(SCHEME.format(version=3))
    assert "but the record b has '9007199254740993'" in shop.refused()
    sql(shop.engine, "UPDATE records.goods SET n = 13 WHERE id = 'b'")
    shop.apply()
    assert sql(shop.engine, "SELECT * FROM report ORDER BY id") == [
        {"id": "a", "n": 12.0},
        {"id": "b", "n": 13.0},
    ]
    assert sql(shop.engine, "SELECT j FROM goods ORDER BY id") == [{"j": '["y"]'}, {"j": None}]
    assert shop.apply() == []


@pytest.mark.parametrize(
    ("was", "value", "now", "becomes"),
    [
        ("Decimal", "5.00", "int", "5"),
        ("Decimal", "5.5", "int", None),
        ("float", 5.0, "int", "5"),
        ("float", 5.5, "int", None),
        ("float", 0.1, "Decimal", "0.1"),
        ("int", 1, "bool", None),
        ("int", 2, "str", "2"),
        ("str", "2026-01-02", "dt.date", "2026-01-02"),
        ("str", "2026-01-02T03:04:05Z", "dt.datetime", "2026-01-02 03:04:05+00"),
        ("str", "soon", "dt.datetime", None),
        ("str", "now", "dt.datetime", None),
        ("str", "infinity", "dt.datetime", None),
        ("str", "0044-03-15 00:00:00Z BC", "dt.datetime", None),
        ("str", "01/02/2026", "dt.datetime", None),
        ("str", "20260128", "dt.datetime", None),
        ("str", "2026-01-02T03:04:05", "dt.datetime", None),
        ("str", "0001-01-01T00:00:00+03:00", "dt.datetime", None),
        ("str", "2026-01-02T24:00:00Z", "dt.datetime", None),
        ("str", "2026-01-02 03:04:05.5+0300", "dt.datetime", "2026-01-02 00:04:05.5+00"),
        ("str", "today", "dt.date", None),
        ("str", "20260102", "dt.date", None),
        ("str", "-infinity", "dt.date", None),
        ("str", "2026-01-02T00:00:00Z", "dt.date", "2026-01-02"),
        ("str", "2026-01-02T03:00:00Z", "dt.date", None),
        ("str", "allballs", "dt.time", None),
        ("str", "03:04 PM", "dt.time", None),
        ("str", "03:04", "dt.time", "03:04:00"),
        ("str", "NaN", "Decimal", None),
        ("str", "Infinity", "Decimal", None),
        ("str", "1_000", "Decimal", None),
        ("str", "NaN", "float", None),
        ("str", "-inf", "float", None),
        ("str", "0x1F", "int", None),
        ("str", " 12.50 ", "Decimal", "12.50"),
        ("str", "1e3", "float", "1000"),
        ("str", "tr", "bool", None),
        ("str", "Yes", "bool", "true"),
        ("str", "90", "dt.timedelta", None),
        ("Any", "now", "dt.datetime", None),
        ("Any", 20260128, "dt.datetime", None),
        ("Any", True, "int", None),
        ("Any", "90", "dt.timedelta", None),
        ("Any", 90.5, "dt.timedelta", "00:01:30.5"),
        ("dt.datetime", "2026-01-02T00:00:00Z", "dt.date", "2026-01-02"),
        ("dt.datetime", "2026-01-02T03:04:05Z", "dt.date", None),
        ("dt.date", "2026-01-02", "dt.datetime", "2026-01-02 00:00:00+00"),
        ("dt.timedelta", 90.5, "float", "90.5"),
        ("float", 90.5, "dt.timedelta", "00:01:30.5"),
        ("str", "a", "list[str]", '"a"'),
        ("list[int]", [1], "str", "[1]"),
        ("bool", True, "str", "true"),
        ("UUID", "00000000-0000-0000-0000-000000000001", "int", None),
    ],
)
def test_value_converts_to_another_type_or_is_refused(
    shop: Shop, was: str, value: object, now: str, becomes: str | None
) -> None:
    shop.given_fields(f"v: {was} | None = None")
    shop.apply()
    shop.use()
    for number in range(500):
        shop.add({"id": str(number), "v": None})
    shop.add({"id": "a", "v": value})
    shop.declare(SCHEME.format(version=2))
    shop.given_fields(f"v: {now} | None = None")
    if becomes is None:
        assert "but the record a has" in shop.refused()
    else:
        shop.apply()
        assert one(shop.engine, "SELECT v::text FROM goods WHERE v IS NOT NULL") == becomes


def test_type_of_a_key_field_is_fixed(shop: Shop) -> None:
    links = (
        '[[scheme]]\nname = "x"\nversion = {}\n[[scheme.operation]]\nname = "foreign"\nkind = "k"\n'
    )
    shop.declare(links.format(1) + 'key = "id"\n')
    shop.apply()
    shop.use(scheme="x")
    shop.declare(links.format(2) + 'key = "id"\nfields = { id = "bigint" }\n')
    assert 'the key field "id" of "k" changed from text to bigint; give the' in shop.refused()


def test_removed_field_leaves_the_view_and_comes_back_with_its_values(shop: Shop) -> None:
    shop.apply()
    shop.use()
    shop.add({"id": "a", "price": "1.50"})
    shop.given_fields("size: str = ''")
    shop.declare(SCHEME.format(version=2))
    lines = shop.apply()
    assert "+ column goods.size text" in lines
    assert "- column goods.price: the table keeps its values" in lines
    assert list(shop.columns("goods")) == ["id", "size", "created_at", "updated_at", "provider"]
    assert "price" in table_columns(shop, "goods")
    shop.use(2)
    shop.given_fields("size: str = ''", "price: Decimal | None = None")
    shop.declare(SCHEME.format(version=3))
    shop.apply()
    assert str(one(shop.engine, "SELECT price FROM goods")) == "1.50"


def test_declared_field_of_a_foreign_kind_gets_its_values_from_data(shop: Shop) -> None:
    table = (
        '[[scheme]]\nname = "x"\nversion = {version}\n[[scheme.operation]]\nname = "foreign"\n'
        'kind = "things"\nkey = "id"\nfields = {{ {fields} }}\n'
    )
    shop.declare(table.format(version=1, fields=""))
    shop.apply()
    shop.use(scheme="x")
    shop.add({"id": "a", "n": 1, "more": 2}, kind="things", former={"id": "a", "n": 0})
    shop.add({"id": "b", "n": None}, kind="things")
    shop.declare(table.format(version=2, fields='n = "bigint"'))
    shop.apply()
    things = "SELECT id, n, data FROM things_history ORDER BY id, n"
    assert [list(state.values()) for state in sql(shop.engine, things)] == [
        ["a", 0, {}],
        ["a", 1, {"more": 2}],
        ["b", None, {}],
    ]
    shop.use(2, scheme="x")
    shop.declare(table.format(version=3, fields=""))
    shop.apply()
    assert one(shop.engine, "SELECT data FROM things WHERE id = 'a'") == {"n": 1, "more": 2}
    shop.use(3, scheme="x")
    shop.declare(table.format(version=4, fields='more = "boolean"'))
    assert "but the record a has '2'" in shop.refused()


def test_field_of_a_foreign_kind_that_is_declared_again_gets_its_values_from_data(
    shop: Shop,
) -> None:
    table = (
        '[[scheme]]\nname = "x"\nversion = {version}\n[[scheme.operation]]\nname = "foreign"\n'
        'kind = "things"\nkey = "id"\nfields = {{ {fields} }}\n'
    )
    shop.declare(table.format(version=1, fields='n = "bigint"'))
    shop.apply()
    shop.use(scheme="x")
    shop.add({"id": "a", "n": 1}, kind="things", former={"id": "a", "n": 0})
    shop.declare(table.format(version=2, fields=""))
    shop.apply()
    shop.use(2, scheme="x")
    shop.declare(table.format(version=3, fields='n = "numeric"'))
    shop.apply()
    things = "SELECT id, n, data FROM things_history ORDER BY id, n"
    assert [list(state.values()) for state in sql(shop.engine, things)] == [
        ["a", 0, {}],
        ["a", 1, {}],
    ]


THINGS = (
    '[[scheme]]\nname = "x"\nversion = {version}\n[[scheme.operation]]\nname = "foreign"\n'
    'kind = "things"\nkey = "id"\nempty_is_null = {empty}\nfields = {{ {fields} }}\n'
)


@pytest.mark.parametrize(
    ("type_", "value", "becomes"),
    [
        ("unix_seconds", 20260128, "1970-08-23 11:48:48+00"),
        ("unix_seconds", 1700000000, "2023-11-14 22:13:20+00"),
        ("unix_seconds", "1700000000.5", "2023-11-14 22:13:20.5+00"),
        ("unix_seconds", -1, "1969-12-31 23:59:59+00"),
        ("unix_seconds", "253402300799.999999", "9999-12-31 23:59:59.999999+00"),
        ("unix_seconds", 253402300800, None),
        ("unix_seconds", "now", None),
        ("unix_seconds", True, None),
        ("unix_seconds", "2026-01-28T00:00:00+00:00", "2026-01-28 00:00:00+00"),
        ("unix_milliseconds", 1700000000123, "2023-11-14 22:13:20.123+00"),
        ("timestamptz", 20260128, None),
        ("timestamptz", "now", None),
        ("date", 20260128, None),
        ("numeric", "NaN", None),
        ("numeric", "", None),
    ],
)
def test_undeclared_value_converts_as_a_load_would_store_it(
    shop: Shop, type_: str, value: object, becomes: str | None
) -> None:
    shop.declare(THINGS.format(version=1, fields="", empty="false"))
    shop.apply()
    shop.use(scheme="x")
    shop.add({"id": "a", "v": value}, kind="things")
    shop.declare(THINGS.format(version=2, fields=f'v = "{type_}"', empty="false"))
    if becomes is None:
        assert f"but the record a has {str(orjson.dumps(value).decode()).strip(chr(34))!r}" in (
            shop.refused()
        )
    else:
        shop.apply()
        assert one(shop.engine, "SELECT v::text FROM things") == becomes


@pytest.mark.parametrize("type_", ["numeric", "date", "bigint", "text", "unix_seconds"])
def test_blank_undeclared_text_becomes_null_where_the_kind_says_so(shop: Shop, type_: str) -> None:
    shop.declare(THINGS.format(version=1, fields="", empty="false"))
    shop.apply()
    shop.use(scheme="x")
    shop.add({"id": "a", "v": ""}, kind="things", former={"id": "a", "v": " \t"})
    shop.declare(THINGS.format(version=2, fields=f'v = "{type_}"', empty="true"))
    shop.apply()
    assert sql(shop.engine, "SELECT v, data FROM things_history") == [{"v": None, "data": {}}] * 2


@pytest.mark.parametrize(
    ("type_", "value", "changes"),
    [
        ("numeric", "12.50", ["changed"]),
        ("numeric", 12.5, ["reformatted"]),
        ("unix_seconds", 20260128, ["changed"]),
        ("timestamptz", "2026-01-28T00:00:00Z", ["changed"]),
        ("text", "x", ["reformatted"]),
    ],
)
def test_load_repairs_a_field_that_was_declared_for_a_while(
    shop: Shop, type_: str, value: object, changes: list[str]
) -> None:
    record = {"id": "a", "v": value, "more": 1}
    shop.declare(THINGS.format(version=1, fields="", empty="false"))
    shop.apply()
    assert load_records(shop.engine, [record], scheme="x")["state"] == "loaded"
    for version, fields in ((2, f'v = "{type_}"'), (3, "")):
        shop.declare(THINGS.format(version=version, fields=fields, empty="false"))
        shop.apply()
        shop.use(version, scheme="x")
    loaded = load_records(shop.engine, [record], scheme="x", version=3)["published"]
    assert [name for name in loaded if name not in ("received", "duplicates")] == changes
    assert one(shop.engine, "SELECT data FROM things") == {"v": value, "more": 1}
    again = load_records(shop.engine, [record], scheme="x", version=3)["published"]
    assert again == {"received": 1, "duplicates": 0}


def test_load_repairs_a_text_that_was_a_number_for_a_while(shop: Shop) -> None:
    for version, type_ in ((1, "str"), (2, "int"), (3, "str")):
        shop.given_fields(f"v: {type_} | None = None")
        shop.declare(SCHEME.format(version=version))
        shop.apply()
        if version == 1:
            load_records(shop.engine, [{"id": "a", "v": "007"}, {"id": "b", "v": None}])
        else:
            shop.use(version)
    loaded = load_records(
        shop.engine, [{"id": "a", "v": "007"}, {"id": "b", "v": None}], version=3
    )["published"]
    assert loaded == {"received": 2, "duplicates": 0, "changed": 1}
    assert one(shop.engine, "SELECT v FROM goods WHERE id = 'a'") == "007"


def test_values_stay_visible_when_a_kind_changes_between_record_type_and_declaration(
    shop: Shop,
) -> None:
    declared = (
        '[[scheme]]\nname = "goods"\nversion = 2\n[[scheme.operation]]\nname = "foreign"\n'
        'kind = "goods"\nkey = "id"\nfields = {}\n'
    )
    shop.given_fields("year: int")
    shop.apply()
    shop.use()
    shop.add({"id": "a", "year": 2}, former={"id": "a", "year": 1})
    shop.declare(declared)
    shop.apply()
    states = "SELECT * FROM goods_history ORDER BY valid_to NULLS LAST"
    assert [state["data"] for state in sql(shop.engine, states)] == [{"year": 1}, {"year": 2}]
    shop.use(2)
    shop.declare(SCHEME.format(version=3))
    shop.apply()
    assert [state["year"] for state in sql(shop.engine, states)] == [1, 2]


PRICED = ("price: Decimal | None = None", "year: int | None = None", "tags: list[str] = []")


def indexes_of(shop: Shop, table: str = "goods") -> set[str]:
    """Return the valid indexes of a table of records, without that of its primary key."""
    found = sql(
        shop.engine,
        """SELECT pg_get_indexdef(indexrelid) AS made FROM pg_index
           WHERE indrelid = CAST(:table AS regclass) AND indisvalid AND NOT indisprimary""",
        table=f"records.{table}",
    )
    return {index["made"].partition(" INDEX ")[2] for index in found}


def on_goods(name: str, columns: str) -> str:
    return f"{name} ON records.goods USING btree ({columns}) WHERE (_removed_at IS NULL)"


def test_declared_indexes_are_built_and_dropped(shop: Shop) -> None:
    shop.given_fields(*PRICED, options='index=("price", ("year", "created_at"))')
    lines = ["+ index goods (price)", "+ index goods (year, created_at)"]
    assert shop.apply(check=True)[-2:] == lines
    assert shop.apply()[-2:] == lines
    made = {
        on_goods("goods_by_price", "price"),
        on_goods("goods_by_year_created_at", "year, _created_at"),
    }
    assert indexes_of(shop) == made
    assert shop.apply() == []
    shop.use()
    own = "goods_price_idx ON records.goods USING btree (price)"
    sql(shop.engine, f"CREATE INDEX {own}")
    shop.given_fields(*PRICED, options='index="year", unique=("year", ("price", "year"))')
    lines = [
        "~ operation acme/goods/goods: indexes",
        "+ index goods (price, year)",
        "+ index goods (year)",
        "- index goods (price)",
        "- index goods (year, created_at)",
    ]
    assert shop.apply(check=True) == lines
    assert indexes_of(shop) == {*made, own}
    assert shop.apply() == lines
    built = {
        on_goods("goods_by_year", "year"),
        on_goods("goods_by_price_year", "price, year"),
    }
    assert indexes_of(shop) == {*built, own}
    assert shop.apply() == []
    shop.given_fields(*PRICED)
    assert shop.apply()[1:] == ["- index goods (price, year)", "- index goods (year)"]
    assert indexes_of(shop) == {own}


def test_indexes_of_declared_kinds_and_of_resources(shop: Shop) -> None:
    table = (
        '[[scheme]]\nname = "x"\n[[scheme.operation]]\nname = "foreign"\nkind = "things"\n'
        'key = "id"\nfields = { n = "bigint", m = "text" }\nindex = ["n", ["m", "n"]]\n'
    )
    shop.declare(SCHEME.format(version=1), table)
    resource = '[resources]\nx = {{ view = "{}", key = "id", {} }}\n'
    shop.given_resources(resource.format("goods", 'filters = ["price"], order = ["created_at"]'))
    assert shop.apply()[-4:] == [
        "+ index goods (created_at, _id)",
        "+ index goods (price)",
        "+ index things (m, n)",
        "+ index things (n)",
    ]
    assert indexes_of(shop) == {
        on_goods("goods_by_created_at__id", "_created_at, _id"),
        on_goods("goods_by_price", "price"),
    }
    assert len(indexes_of(shop, "things")) == 2
    assert shop.apply() == []
    shop.given_resources(resource.format("goods", 'filters = ["price"]'))
    assert shop.apply() == ["- index goods (created_at, _id)"]
    shop.given_resources(resource.format("missing", 'filters = ["price"]'))
    assert shop.apply() == ["- index goods (price)"]
    shop.given_view("cheap", "SELECT id, price FROM goods")
    for view, filters, refused in (
        ("cheap", "price", '"cheap" is not the view of a kind; declare `index`'),
        ("goods", "size", '"size" is not a column of "goods" that an index can hold'),
    ):
        shop.given_resources(resource.format(view, f'filters = ["{filters}"]'))
        assert f"resources.toml: resources.x: {refused}" in shop.refused()


def test_indexes_of_other_projects_resources_stay(shop: Shop) -> None:
    shop.given_resources('[resources]\nx = { view = "goods", key = "id", filters = ["price"] }\n')
    shop.apply()
    shop.given_resources("")
    sql(shop.engine, "COMMENT ON INDEX records.goods_by_price IS 'catlog resources other'")
    assert shop.apply() == []
    assert indexes_of(shop) == {on_goods("goods_by_price", "price")}


def test_broken_index_is_built_again(shop: Shop) -> None:
    shop.given_fields(*PRICED, options='index="price"')
    shop.apply()
    sql(
        shop.engine,
        """UPDATE pg_index SET indisvalid = false
           WHERE indexrelid = 'records.goods_by_price'::regclass""",
    )
    assert shop.apply() == ["+ index goods (price)"]
    assert indexes_of(shop) == {on_goods("goods_by_price", "price")}


def test_index_waits_for_older_transactions_and_gives_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.apply()
    shop.use()
    monkeypatch.setattr(indexes, "BUILD_LOCK_TIMEOUT_S", 0.2)
    shop.given_fields("price: Decimal | None = None", options='index="price"')
    with shop.engine.begin() as older:
        older.execute(text("INSERT INTO records.goods_versions SELECT FROM records.goods"))
        older.execute(text("LOCK TABLE records.goods IN ROW EXCLUSIVE MODE"))
        with pytest.raises(NotPossible, match="waits for older transactions"):
            shop.apply()
    assert indexes_of(shop) == set()
    assert shop.apply() == ["+ index goods (price)"]


def test_values_must_be_unique_before_they_are_declared_so(shop: Shop) -> None:
    shop.given_fields(*PRICED)
    shop.apply()
    shop.use()
    for number, year in enumerate((None, None, 2001, 2001)):
        shop.add({"id": str(number), "year": year})
    shop.given_fields(*PRICED, options='unique="year"')
    message = "records of \"goods\" share year '2001'; load unique values before you declare them"
    assert message in shop.refused()
    sql(shop.engine, "UPDATE records.goods SET _removed_at = now() WHERE id = '3'")
    assert shop.apply()[1:] == ["+ index goods (year)"]


class Killed(Exception):
    """Stands for the end of the process, before a statement."""


def test_apply_may_be_killed_at_any_statement(shop: Shop) -> None:
    shop.given_view("report", "SELECT id, price FROM goods")
    shop.given_fields("price: int | None = None", "size: str = ''", options='index="size"')
    shop.apply()
    for number in range(200):
        shop.add({"id": str(number), "price": number, "size": "s"}, former={"id": str(number)})
    version = itertools.count(1)
    kinds = itertools.cycle(("Decimal", "int"))
    killed_at = 0
    while True:
        killed_at += 1
        shop.use(next(version))
        shop.declare(SCHEME.format(version=killed_at + 1))
        added = f"added_{killed_at}: int | None = None"
        shop.given_fields(
            f"price: {next(kinds)} | None = None",
            added,
            options=f'index=("price", "added_{killed_at}")',
        )
        if not apply_until(shop, killed_at):
            break
        require_consistent(shop)
        shop.apply()
        require_consistent(shop)
        assert one(shop.engine, "SELECT sum(price) FROM report") == 199 * 100
    assert killed_at > 20
    assert shop.apply() == []


def apply_until(shop: Shop, number: int) -> bool:
    """Apply, and kill apply before its statement *number*; return whether it came so far."""
    count = itertools.count(1)

    def kill(_: object, __: object, statement: str, *___: object) -> None:
        # Before a statement that only reads, the database is as before the next one.
        reads = statement.lstrip().startswith(("SELECT", "WITH", "EXPLAIN"))
        if not reads and next(count) == number:
            raise Killed

    event.listen(shop.engine, "before_cursor_execute", kill)
    try:
        shop.apply()
    except Killed:
        # A dead process has no sessions, and so no session locks.
        shop.engine.dispose()
        return True
    finally:
        event.remove(shop.engine, "before_cursor_execute", kill)
    return False


def require_consistent(shop: Shop) -> None:
    """Read all views, and find a column for each field of each kind."""
    for view in sql(
        shop.engine,
        """SELECT relnamespace::regnamespace AS schema, relname FROM pg_class
           WHERE relkind = 'v' AND relnamespace IN
               ('public'::regnamespace, 'as_of'::regnamespace)""",
    ):
        sql(shop.engine, f'SELECT * FROM {view["schema"]}."{view["relname"]}"')
    with shop.engine.connect() as connection:
        for kind in all_kinds(connection).values():
            stored = stored_columns(connection, [kind.name])[kind.name]
            assert dict(kind.columns).items() <= stored.items()


def test_readers_and_loads_go_on_while_apply_waits(shop: Shop) -> None:
    """A reader of the table makes apply give up, and nothing waits behind it for long."""
    shop.apply()
    shop.use()
    shop.add({"id": "a", "price": "1"})
    shop.declare(SCHEME.format(version=2))
    shop.given_fields("price: int | None = None")
    with shop.engine.begin() as reader:
        reader.execute(text("SELECT * FROM goods"))
        with pytest.raises(NotPossible, match="other sessions lock what has to change"):
            shop.apply()
        assert shop.columns("goods")["price"] == "numeric"
    shop.apply()
    assert shop.columns("goods")["price"] == "bigint"


def test_load_that_is_published_while_its_table_changes_is_visible(shop: Shop) -> None:
    """The publisher may have to try again, as after any error, but loses nothing."""
    types = ("str", "int")
    shop.given_fields(f"size: {types[0]} | None = None")
    shop.apply()
    for number in range(1, 9):
        catalog = given_a_catalog(shop.engine)
        send_records(shop.engine, catalog, [{"id": "a", "size": str(number)}])
        shop.declare(SCHEME.format(version=number + 1))
        shop.given_fields(f"size: {types[number % 2]} | None = None")

        def publish(catalog: UUID = catalog) -> None:
            with contextlib.suppress(exc.ProgrammingError, exc.OperationalError):
                publishing.publish(shop.engine, catalog)

        at_once(shop.apply, publish)
        if state_of(shop.engine, catalog) == "publishing":
            assert publishing.publish(shop.engine, catalog)
        assert state_of(shop.engine, catalog) == "loaded"
        assert one(shop.engine, "SELECT size::text FROM goods") == str(number)
    assert one(shop.engine, "SELECT count(*) FROM goods_history") == 8


def test_apply_during_a_publish_loses_no_declared_value(shop: Shop) -> None:
    table = (
        '[[scheme]]\nname = "x"\nversion = {version}\n[[scheme.operation]]\nname = "foreign"\n'
        'kind = "things"\nkey = "id"\nfields = {{ {fields} }}\n'
    )
    shop.declare(table.format(version=1, fields=""))
    shop.apply()
    catalog = given_a_catalog(shop.engine, scheme="x")
    send_records(shop.engine, catalog, [{"id": "a", "n": 1}])
    shop.declare(table.format(version=2, fields='n = "bigint"'))
    applied: list[Future[list[str]]] = []
    with ThreadPoolExecutor(1) as pool:

        @event.listens_for(shop.engine, "before_cursor_execute")
        def apply_now(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "INSERT INTO catlog.scope" in statement and not applied:
                applied.append(pool.submit(shop.apply))
                wait(applied, timeout=1)

        try:
            assert publishing.publish(shop.engine, catalog)
        finally:
            event.remove(shop.engine, "before_cursor_execute", apply_now)
    with contextlib.suppress(NotPossible):
        applied[0].result()
    shop.apply()
    assert sql(shop.engine, "SELECT id, n, data FROM things") == [{"id": "a", "n": 1, "data": {}}]


def test_concurrent_applies_store_declarations_once(shop: Shop) -> None:
    shop.given_view("report", "SELECT id FROM goods")
    done = at_once(*[shop.apply] * 4)
    assert sorted(map(len, done)) == [0, 0, 0, 5]
    assert shop.apply() == []


def test_catalog_created_during_apply_freezes_its_version(shop: Shop) -> None:
    shop.apply()
    provider, scheme = sql(shop.engine, "SELECT provider_id, id FROM catlog.catalog_scheme")[
        0
    ].values()
    shop.declare('[[scheme]]\nname = "goods"\noperations = ["links"]\n')
    with shop.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO catlog.catalog (provider_id, scheme_id, origin)"
                f" VALUES ('{provider}', '{scheme}', 'load')"
            )
        )
        with pytest.raises(NotPossible, match="other sessions lock what has to change"):
            shop.apply()
    assert "the set of operations changed" in shop.refused()


def test_apply_gives_up_while_a_query_locks_a_view(shop: Shop) -> None:
    shop.given_view("report", "SELECT id FROM goods")
    shop.apply()
    shop.given_view("report", "SELECT id, price FROM goods")
    shop.declare(SCHEME.format(version=2))
    with shop.engine.connect() as reader:
        reader.execute(text("SELECT * FROM public.report"))
        before = shop.everything()
        with pytest.raises(NotPossible, match="a long query on a view"):
            shop.apply()
        assert shop.everything() == before
    assert shop.apply()[-1] == "~ view report"


def test_dropped_view_is_recreated(shop: Shop) -> None:
    shop.apply()
    sql(shop.engine, "DROP VIEW public.goods")
    assert shop.apply() == ["+ view goods"]


def test_missing_provider_folder_retires_no_declaration(shop: Shop) -> None:
    shop.apply()
    (shop.folder / "providers").rename(shop.folder / "elsewhere")
    assert "does not exist; create it, or correct CATLOG_PROVIDERS" in shop.refused()


def test_apply_reports_a_spider_module_that_raises(shop: Shop) -> None:
    (shop.folder / shop.package / "spiders.py").write_text("x = 1\nx / 0\n")
    message = shop.refused()
    assert f"{shop.package}.spiders line 2: ZeroDivisionError: division by zero" in message


def end_catalog(shop: Shop, state: str, *, accepted: int = 0, published: Any = None) -> None:
    """Run a catalog of version 1 that ends in *state*, with a done attempt of *accepted* rows."""
    shop.use()
    [catalog] = sql(shop.engine, "SELECT id FROM catlog.catalog WHERE finished_at IS NULL")
    assert starting.start(shop.engine, catalog["id"])
    claimed = claim_of(shop.engine, catalog["id"])
    sql(
        shop.engine,
        """UPDATE catlog.instance_attempt
           SET accepted = :accepted, finished_at = clock_timestamp(),
               outcome = CASE WHEN :accepted > 0 THEN 'done' ELSE 'failed' END
           WHERE instance_id = :id""",
        id=claimed.attempt.instance,
        accepted=accepted,
    )
    sql(
        shop.engine,
        """UPDATE catlog.catalog SET state = :state, finished_at = clock_timestamp(),
               published = CAST(:published AS jsonb) WHERE id = :id""",
        id=catalog["id"],
        state=state,
        published=None if published is None else orjson.dumps(published).decode(),
    )


@pytest.mark.parametrize("state", ["failed", "cancelled", "skipped", "loaded"])
def test_version_whose_loads_stored_nothing_may_change(shop: Shop, state: str) -> None:
    shop.apply()
    for _ in range(2):
        end_catalog(shop, state, published={"received": 0, "duplicates": 0})
    shop.given_fields("price: Decimal | None = None", "more: int = 0")
    assert "~ operation acme/goods/goods: record types" in shop.apply()


@pytest.mark.parametrize(
    ("state", "accepted", "published"),
    [
        ("failed", 1, None),
        ("cancelled", 5, None),
        ("loaded", 3, {"received": 3, "created": 3}),
        ("loaded", 0, {"received": 0, "removed": 7}),
    ],
)
def test_version_whose_loads_stored_something_is_frozen(
    shop: Shop, state: str, accepted: int, published: Any
) -> None:
    shop.apply()
    end_catalog(shop, state, accepted=accepted, published=published)
    shop.given_fields("price: Decimal | None = None", "more: int = 0")
    assert "record types changed, but catalogs use version 1" in shop.refused()


def test_version_with_an_open_catalog_is_frozen(shop: Shop) -> None:
    shop.apply()
    end_catalog(shop, "failed")
    shop.use()
    shop.given_fields("price: Decimal | None = None", "more: int = 0")
    assert "record types changed, but catalogs use version 1" in shop.refused()


def test_operation_that_a_catalog_has_tried_cannot_be_removed(shop: Shop) -> None:
    shop.apply()
    end_catalog(shop, "failed")
    shop.declare(SCHEME.format(version=1).replace('"goods"]', '"links"]'))
    message = shop.refused()
    assert (
        "the operation goods was removed, but a catalog has tried it; write version = 2" in message
    )
    shop.declare(SCHEME.format(version=1).replace('"goods"]', '"goods", "links"]'))
    assert "+ operation acme/goods/links" in shop.apply()


def test_untracked_fields_may_change_at_any_time(shop: Shop) -> None:
    shop.apply()
    end_catalog(shop, "loaded", accepted=1, published={"created": 1})
    shop.given_fields("price: Decimal | None = None", options='untracked="price"')
    assert shop.apply() == ["~ operation acme/goods/goods: untracked fields"]
    assert one(shop.engine, "SELECT untracked FROM catlog.kind") == ["price"]
    assert shop.apply() == []


def test_apply_shows_indexes_and_untracked_fields_that_change_together(shop: Shop) -> None:
    shop.apply()
    shop.given_fields("price: Decimal | None = None", options='index="price", untracked="price"')
    title = "~ operation acme/goods/goods"
    assert shop.apply() == [
        f"{title}: indexes",
        f"{title}: untracked fields",
        "+ index goods (price)",
    ]


def test_table_without_room_for_further_columns_is_refused(shop: Shop) -> None:
    shop.given_fields(*(f"a{number}: int = 0" for number in range(1000)))
    shop.apply()
    end_catalog(shop, "loaded", accepted=1, published={"created": 1})
    shop.declare(SCHEME.format(version=2))
    shop.given_fields(*(f"b{number}: int = 0" for number in range(1000)))
    message = shop.refused()
    assert "tables can have at most 1600 columns; columns of removed fields stay" in message


def test_record_type_with_the_most_fields_is_loaded_and_read(shop: Shop) -> None:
    names = [f"a{number}" for number in range(MAX_FIELDS - 2)]
    shop.given_fields(*(f"{name}: int | None = None" for name in names))
    shop.apply()
    for value in (1, 2):
        record = {"id": "a", names[0]: value, names[-1]: value}
        assert load_records(shop.engine, [record])["state"] == "loaded"
    states = "SELECT a0, a1497 FROM goods_history ORDER BY a0"
    assert sql(shop.engine, states) == [{"a0": n, "a1497": n} for n in (1, 2)]
    assert one(shop.engine, "SELECT a1497 FROM as_of.goods") == 2
