"""Time travel: as-of views, change stamps, lineage of views, and states of a record."""

import datetime as dt
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scrapy.settings import Settings
from sqlalchemy import Connection, Engine, exc, text

import catlog_scrapy
from catlog_scrapy.declarations import apply
from catlog_scrapy.exceptions import DeclarationError, NotPossible
from catlog_scrapy.store import lock_timeouts
from catlog_scrapy.store.maintenance.reset import reset
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.views import change_stamps, lineage, time_travel
from catlog_scrapy.store.views.applying import apply_views, dry_run_views
from catlog_scrapy.store.views.plan import ViewPlan, check_views, plan_views
from catlog_scrapy.store.views.time_travel import record_states
from tests.integration.test_order_of_time_model import (
    Load,
    given_four_versions,
    given_that_it_loaded,
    histories,
)
from tests.support.factories import (
    FIELDS,
    GONE,
    UNCHANGED,
    an_operation,
    given_a_loaded_catalog,
    given_a_record,
    given_a_scheme,
    given_fields,
    load,
    one,
    publish_again,
    sql,
    state_of,
)

_numbers = itertools.count(1)
UNLIMITED_REMOVALS = {"removed": 1.0}
# Over two kinds; over a view; with a common table expression that has the name of a kind; constant.
PROJECT_VIEWS = {
    "pairs": "SELECT g.value AS good, m.value AS maker FROM goods g JOIN public.makers m"
    " ON g.value ->> 0 = m.value ->> 0",
    "a_total": "SELECT count(*) AS n, max(good ->> 1) AS most FROM pairs",
    "hidden": "WITH goods AS (SELECT value FROM public.goods WHERE value IS NOT NULL),"
    " x AS (SELECT 'public.goods' AS \"public.goods\") SELECT value, x.* FROM goods, x",
    "plain": "SELECT 1 AS n",
}


def given_views(
    engine: Engine, project_views: Mapping[str, str] = {}, project: str = "shop"
) -> list[str]:
    """Apply views as `scrapy apply` does; return the lines that it prints."""

    def planned(connection: Connection) -> ViewPlan:
        refused = check_views(connection, [], project_views, project)
        if refused:
            raise DeclarationError("\n".join(refused))
        plan = plan_views(connection, [], project_views, project)
        dry_run_views(connection, plan)
        return plan

    plan = lock_timeouts.run_with_lock_timeout(engine, planned)
    apply_views(engine, plan)
    return [f"{sign} {name}" for sign, name in plan.changes()]


def given_goods_and_makers(engine: Engine) -> None:
    """Insert operations `goods` and `makers`; `makers` has a declared kind, no record type."""
    both = (an_operation(name, tolerate=UNLIMITED_REMOVALS) for name in ("goods", "makers"))
    given_a_scheme(engine, *both)
    given_fields(engine, dict(FIELDS), foreign=["makers"])


def read(connection: Connection, view: str) -> list[Any]:
    found = connection.execute(text(f"SELECT to_jsonb(v)::text AS r FROM {view} v ORDER BY 1"))
    return [row.r for row in found]


def now_in(engine: Engine, *views: str) -> list[list[Any]]:
    with engine.connect() as connection:
        return [read(connection, f"public.{view}") for view in views]


def then_in(engine: Engine, instant: dt.datetime, *views: str) -> list[list[Any]]:
    with engine.connect() as connection:
        time_travel.set_as_of(connection, instant)
        return [read(connection, f"as_of.{view}") for view in views]


def clock(engine: Engine) -> dt.datetime:
    instant: dt.datetime = one(engine, "SELECT clock_timestamp()")
    return instant


def stamps(engine: Engine) -> dict[str, Any]:
    found = sql(engine, "SELECT * FROM catlog.publication")
    return {each["kind"]: (each["catalog_id"], each["published_at"]) for each in found}


def with_removals(published: list[tuple[int, Load]]) -> list[tuple[int, Load]]:
    """Load incrementally, with some keys reported as deleted by the source."""
    return [
        (
            day,
            replace(each, rows=[(p, k, GONE if v == 3 else v) for p, k, v in each.rows])
            if each.version == 4
            else each,
        )
        for day, each in published
    ]


@settings(
    max_examples=12,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(histories.map(with_removals), st.booleans())
def test_as_of_views_show_what_current_views_showed_then(
    engine: Engine, published: list[tuple[int, Load]], again: bool
) -> None:
    provider = f"acme_{next(_numbers)}"
    given_four_versions(engine, provider)
    project_views = {
        "twos": "SELECT a.value, count(*) AS n FROM goods a JOIN goods b USING (value) GROUP BY 1",
        "most": "SELECT max(n) AS n FROM twos",
    }
    given_views(engine, project_views)
    views = ("goods", "twos", "most")
    pictures = [(clock(engine), now_in(engine, *views))]
    for as_of, given_load in published:
        before = now_in(engine, "goods")
        catalog = given_that_it_loaded(engine, provider, as_of, given_load)
        assert publishing.publish(engine, catalog)
        picture = now_in(engine, *views)
        changed = {c: n for c, n in stamps_of(engine, provider).items() if c == catalog}
        assert bool(changed) == (picture[:1] != before)
        pictures += [(at, picture) for at in changed.values()]
        pictures.append((clock(engine), picture))
        if again and state_of(engine, catalog) == "loaded":
            before_again = stamps_of(engine, provider)
            publish_again(engine, catalog)
            assert stamps_of(engine, provider) == before_again
    for instant, picture in pictures:
        assert then_in(engine, instant, *views) == picture
    with engine.connect() as connection:
        known = time_travel.change_times(connection, ["goods"], before=None, limit=10_000)
    for (earlier, former), (later, latter) in itertools.pairwise(pictures):
        if former != latter:
            assert any(earlier < time <= later for time in known)


def stamps_of(engine: Engine, provider: str) -> dict[Any, dt.datetime]:
    found = sql(
        engine,
        """SELECT s.catalog_id, s.published_at FROM catlog.publication s
           JOIN catlog.provider p ON p.id = s.provider_id WHERE p.name = :provider""",
        provider=provider,
    )
    return {each["catalog_id"]: each["published_at"] for each in found}


def test_as_of_views_over_views_and_kinds_show_their_past(engine: Engine) -> None:
    given_goods_and_makers(engine)
    assert given_views(engine, PROJECT_VIEWS)[-4:] == [
        "+ a_total",
        "+ hidden",
        "+ pairs",
        "+ plain",
    ]
    views = ("goods", "makers", *PROJECT_VIEWS)
    pictures = [(clock(engine), now_in(engine, *views))]
    for goods, makers in (
        ({"a": ["x", 1], "b": ["y", 1]}, {"x": ["x"]}),
        ({"a": ["x", 2]}, {"x": ["x"], "y": ["y"]}),
        ({"a": ["x", 2], "b": ["y", 3]}, {"y": ["y", 5]}),
    ):
        load(engine, by_operation={"goods": goods, "makers": makers})
        pictures.append((clock(engine), now_in(engine, *views)))
    assert len({str(picture) for _, picture in pictures}) == len(pictures)
    for instant, picture in pictures:
        assert then_in(engine, instant, *views) == picture
    ahead = pictures[-1][0] + dt.timedelta(days=365)
    assert then_in(engine, ahead, *views) == pictures[-1][1]
    assert then_in(engine, pictures[0][0] - dt.timedelta(days=365), "goods") == [[]]
    with engine.connect() as connection:
        assert [read(connection, f"as_of.{view}") for view in views] == pictures[-1][1]


def test_as_of_setting_defaults_to_now_and_must_be_a_time(engine: Engine) -> None:
    given_goods_and_makers(engine)
    given_views(engine)
    load(engine, by_operation={"goods": {"a": 1}, "makers": {}})
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL catlog.as_of = ''"))
        assert len(read(connection, "as_of.goods")) == 1
        connection.execute(text("SET LOCAL catlog.as_of = 'infinity'"))
        assert len(read(connection, "as_of.goods")) == 1
        connection.execute(text("SET LOCAL catlog.as_of = 'yesteryear'"))
        with pytest.raises(exc.DataError, match='type timestamp with time zone: "yesteryear"'):
            read(connection, "as_of.goods")


def test_as_of_views_are_created_and_dropped_with_their_views(engine: Engine) -> None:
    given_goods_and_makers(engine)
    given_views(engine, PROJECT_VIEWS)
    assert given_views(engine, PROJECT_VIEWS) == []
    assert as_of_views(engine) == {"goods", "makers", *PROJECT_VIEWS}
    less = {name: PROJECT_VIEWS[name] for name in ("hidden", "plain")}
    assert given_views(engine, less) == ["- a_total", "- pairs"]
    assert as_of_views(engine) == {"goods", "makers", *less}
    sql(engine, "DROP VIEW public.plain; CREATE TABLE public.plain (n int)")
    assert given_views(engine, {"hidden": PROJECT_VIEWS["hidden"]}) == ["- plain"]
    assert as_of_views(engine) == {"goods", "makers", "hidden"}
    sql(engine, "DROP VIEW as_of.goods CASCADE")
    assert given_views(engine, {"hidden": PROJECT_VIEWS["hidden"]}) == ["~ goods", "~ hidden"]
    assert as_of_views(engine) == {"goods", "makers", "hidden"}


def as_of_views(engine: Engine) -> set[str]:
    found = sql(engine, "SELECT relname FROM pg_class WHERE relnamespace = 'as_of'::regnamespace")
    return {each["relname"] for each in found}


def test_apply_creates_missing_as_of_views_of_all_projects(engine: Engine) -> None:
    given_goods_and_makers(engine)
    given_views(engine, {"z_of_other": "SELECT value FROM goods"}, "other")
    project_views = {**PROJECT_VIEWS, "a_reader": "SELECT count(*) AS n FROM z_of_other"}
    given_views(engine, project_views)
    sql(engine, "DROP SCHEMA as_of CASCADE; CREATE SCHEMA as_of")
    before = clock(engine)
    load(engine, by_operation={"goods": {"a": 1}, "makers": {}})
    assert given_views(engine, project_views) == [
        *("~ goods", "~ makers"),
        *("~ a_reader", "~ a_total", "~ hidden", "~ pairs", "~ plain", "~ z_of_other"),
    ]
    assert given_views(engine, project_views) == []
    assert given_views(engine, {"z_of_other": "SELECT value FROM goods"}, "other") == []
    assert then_in(engine, before, "a_reader") == [['{"n": 0}']]
    assert now_in(engine, "a_reader") == [['{"n": 1}']]


def test_views_on_a_kind_change_with_the_kind_and_keep_their_readers(engine: Engine) -> None:
    given_goods_and_makers(engine)
    project_views = {"report": "SELECT * FROM goods", "total": "SELECT count(*) AS n FROM report"}
    project_views["changes"] = "SELECT change, count(*) AS n FROM goods_history GROUP BY change"
    given_views(engine, project_views)
    sql(engine, "CREATE ROLE analyst_of_the_past")
    try:
        sql(engine, "GRANT SELECT ON as_of.report TO analyst_of_the_past WITH GRANT OPTION")
        sql(engine, "GRANT SELECT ON public.total TO PUBLIC")
        given_fields(engine, {"more": "text", **dict(FIELDS)}, kinds=["goods"])
        assert given_views(engine, project_views)[:2] == ["~ goods", "~ goods_history"]
        assert given_views(engine, project_views) == []
        has = "SELECT has_table_privilege('analyst_of_the_past', :view, :privilege)"
        option = "SELECT WITH GRANT OPTION"
        assert one(engine, has, view="as_of.report", privilege=option)
        assert not one(engine, has, view="public.report", privilege="SELECT")
        assert not one(engine, has, view="as_of.total", privilege="SELECT")
        assert one(engine, has, view="public.total", privilege="SELECT")
    finally:
        sql(engine, "DROP OWNED BY analyst_of_the_past")
        sql(engine, "DROP ROLE analyst_of_the_past")
    columns = sql(engine, "SELECT * FROM as_of.report LIMIT 0") == []
    assert columns and as_of_views(engine) == {"goods", "makers", *project_views}


def test_apply_refuses_to_replace_an_as_of_view_that_a_foreign_view_reads(engine: Engine) -> None:
    given_goods_and_makers(engine)
    given_views(engine)
    sql(engine, "CREATE VIEW public.mine AS SELECT value FROM as_of.goods")
    given_fields(engine, {"id": "text", "other": "text"})
    with pytest.raises(DeclarationError, match="has to be replaced, but mine reads it"):
        given_views(engine)


def test_apply_gives_up_while_a_query_locks_an_as_of_view(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_timeouts, "LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(lock_timeouts, "RETRY_PAUSE_S", 0.01)
    given_goods_and_makers(engine)
    given_views(engine, {"report": "SELECT value FROM goods"})
    with engine.connect() as reader:
        read(reader, "as_of.report")
        with pytest.raises(NotPossible, match="a long query on a view"):
            given_views(engine, {"report": "SELECT value FROM makers"})
        load(engine, by_operation={"goods": {"a": 1}, "makers": {}})
        assert len(*now_in(engine, "report")) == len(read(reader, "as_of.report")) + 1 == 1
    assert given_views(engine, {"report": "SELECT value FROM makers"}) == ["~ report"]
    assert now_in(engine, "report") == [[]]


def test_foreign_objects_in_the_as_of_schema_are_not_touched(engine: Engine) -> None:
    given_goods_and_makers(engine)
    sql(engine, "CREATE TABLE as_of.goods (x int)")
    with pytest.raises(
        DeclarationError, match=r'as_of."goods" exists and was not created by catlog'
    ):
        given_views(engine)


def test_a_view_without_a_readable_as_of_view_raises_when_read_as_of(engine: Engine) -> None:
    given_goods_and_makers(engine)
    given_views(engine)
    sql(
        engine,
        """CREATE FUNCTION public.said(g public.goods) RETURNS text LANGUAGE sql
           RETURN (g).value ->> 0""",
    )
    project_views = {"sayings": "SELECT said(g), 1 AS n FROM goods g", "b": "SELECT n FROM sayings"}
    assert given_views(engine, project_views) == ["+ b", "+ sayings"]
    assert given_views(engine, project_views) == []
    with engine.connect() as connection:
        assert not lineage.view_sources(connection, "sayings").has_as_of_view
        assert lineage.view_sources(connection, "goods").has_as_of_view
        for view in ("sayings", "b"):
            assert read(connection, f"public.{view}") == []
            with pytest.raises(exc.DataError, match="the view s"), connection.begin_nested():
                connection.execute(text(f"SELECT * FROM as_of.{view}"))


def test_publications_change_when_readers_see_other_rows(engine: Engine) -> None:
    given_a_scheme(
        engine,
        an_operation("goods", tolerate=UNLIMITED_REMOVALS),
        an_operation("makers", tolerate=UNLIMITED_REMOVALS, mode="incremental"),
    )
    seen: list[Any] = []

    def changed_kinds(work: Callable[[], Any]) -> set[str]:
        before = stamps(engine)
        seen.append(hashed(engine))
        work()
        after = stamps(engine)
        assert (hashed(engine) in seen) == (before == after)
        return {kind for kind in after if after[kind] != before.get(kind)}

    def loaded(day: float, goods: Any, makers: Any = None) -> Callable[[], Any]:
        return lambda: load(
            engine, by_operation={"goods": goods, "makers": makers or {}}, as_of=day
        )

    assert changed_kinds(loaded(1, {"a": 1, "b": 1}, {"m": 1})) == {"goods", "makers"}
    assert changed_kinds(loaded(2, {"a": 1, "b": 1}, {"m": 1})) == set()
    assert changed_kinds(loaded(3, {"a": 1, "b": 1}, {"m": UNCHANGED, "n": GONE})) == set()
    assert changed_kinds(loaded(4, {"a": 1, "b": 1}, {"m": 2})) == {"makers"}
    assert changed_kinds(loaded(5, {"a": 1})) == {"goods"}
    assert changed_kinds(loaded(6, {"a": 1, "b": 1}, {"m": GONE})) == {"goods", "makers"}
    assert changed_kinds(loaded(5.5, {"c": 1}, {"m": 7})) == set()
    assert changed_kinds(lambda: reset(engine, "acme", "goods", "goods", dry_run=True)) == set()
    assert changed_kinds(lambda: reset(engine, "acme", "goods", "goods", dry_run=False)) == {
        "goods"
    }


def hashed(engine: Engine) -> str:
    with engine.connect() as connection:
        return change_stamps.change_stamp(connection, ["goods", "makers"])


def test_a_refused_or_failed_publish_records_no_publication(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    before = stamps(engine)
    assert load(engine, {"d": 1}, as_of=2)["state"] == "failed"
    catalog = given_a_loaded_catalog(engine, {"a": 2, "b": 2, "c": 2}, as_of=3)
    sql(engine, "ALTER TABLE catlog.publication ADD CHECK (catalog_id IS NULL) NOT VALID")
    with pytest.raises(exc.IntegrityError):
        publishing.publish(engine, catalog)
    assert stamps(engine) == before
    assert one(engine, "SELECT count(*) FROM records.goods_versions") == 0


def test_view_sources_name_kinds_relations_and_volatility(engine: Engine) -> None:
    given_goods_and_makers(engine)
    sql(engine, "CREATE TABLE public.mine (n int)")
    project_views = {
        **PROJECT_VIEWS,
        "old": "SELECT value FROM makers_history",
        "mixed": "SELECT a.n, m.n AS m, state FROM a_total a, mine m, catlog.catalog",
        "today": "SELECT value FROM goods WHERE created_at > current_date",
        "recent": "SELECT 1 AS n FROM goods WHERE updated_at < now()",
        "quoted": "SELECT 'now() CURRENT_DATE' AS told, random() IS NULL AS r, n FROM plain",
        "of_today": "SELECT count(*) AS n FROM today",
    }
    given_views(engine, project_views)
    with engine.connect() as connection:

        def sources(view: str) -> tuple[Any, ...]:
            found = lineage.view_sources(connection, view)
            assert found.has_as_of_view
            return found.kinds, found.others, found.is_volatile

        assert sources("goods") == (("goods",), (), False)
        assert sources("a_total") == (("goods", "makers"), (), False)
        assert sources("hidden") == (("goods",), (), False)
        assert sources("old") == (("makers",), (), False)
        assert sources("plain") == ((), (), False)
        assert sources("mixed") == (("goods", "makers"), ("catlog.catalog", "public.mine"), False)
        assert (
            sources("today") == sources("of_today") == sources("recent") == (("goods",), (), True)
        )
        assert sources("quoted") == ((), (), True)
        for view, kinds in (("hidden", ("goods",)), ("goods_history", None), ("old", None)):
            assert lineage.view_sources(connection, view).cacheable_kinds == kinds
        nothing = lineage.view_sources(connection, "nobody")
        assert nothing == lineage.ViewSources((), (), False, has_as_of_view=False)


def test_project_views_of_catlog_have_as_of_views(engine: Engine) -> None:
    folder = Path(catlog_scrapy.__file__).parent
    apply(
        engine,
        Settings(
            {
                "SPIDER_MODULES": ["catlog_scrapy.spiders"],
                "CATLOG_PROVIDERS": str(folder / "providers"),
                "CATLOG_VIEWS": str(folder / "views"),
                "CATLOG_RESOURCES": str(folder / "resources.toml"),
            }
        ),
    )
    with engine.connect() as connection:
        fuel = ("fuel_prices", "fuel_services", "fuel_types", "stations")
        assert lineage.view_sources(connection, "fuel_stations") == lineage.ViewSources(
            fuel, (), is_volatile=False, has_as_of_view=True
        )
        assert lineage.view_sources(connection, "learning_statistics").has_as_of_view


def test_change_times_are_paged(engine: Engine) -> None:
    given_goods_and_makers(engine)
    times = []
    for goods in ({"a": 1}, {"a": 2}, {"a": 2}, {}, {"a": 2}, {"a": 3}):
        load(engine, by_operation={"goods": goods, "makers": {"m": 1}})
        times.append(stamps(engine)["goods"][1])
    expected = sorted(set(times), reverse=True)
    assert len(expected) == 5
    with engine.connect() as connection:

        def times_of_change(**given: Any) -> list[dt.datetime]:
            return time_travel.change_times(
                connection, ["goods"], **{"before": None, "limit": 100, **given}
            )

        assert times_of_change() == expected
        assert times_of_change(limit=2) == expected[:2]
        assert times_of_change(before=expected[1], limit=2) == expected[2:4]
        assert times_of_change(before=expected[-1]) == []
        assert (
            time_travel.change_times(connection, ["makers"], before=None, limit=9) == expected[-1:]
        )


@pytest.mark.parametrize(
    ("types", "key"),
    [
        ({"id": "text"}, {"id": "7"}),
        ({"n": "bigint"}, {"n": 7}),
        ({"id": "text", "n": "bigint"}, {"id": "x", "n": 7}),
        ({"price": "numeric"}, {"price": "7.50"}),
        ({"price": "numeric"}, {"price": "7.5"}),
    ],
)
def test_record_states_by_id_and_by_key_fields(
    engine: Engine, types: dict[str, str], key: dict[str, Any]
) -> None:
    given_a_scheme(engine)
    given_fields(engine, {**types, "value": "jsonb"}, key=list(types))
    stored = {**key, **({"price": "7.50"} if "price" in key else {})}
    given_a_record(engine, "goods", {**stored, "value": 2}, former={**stored, "value": 1})
    with engine.connect() as connection:
        found = record_states(connection, "goods", key, ["value", "other"])
        assert [state["line"] for state in found] == [f'{{"value":{n}}}' for n in (2, 1)]
        assert [state["change"] for state in found] == [None, "changed"]
        assert found[0]["valid_to"] is None
        assert found[1]["valid_to"] == found[0]["valid_from"]
        first = found[0]["valid_from"]
        some = record_states(connection, "goods", key, ["value"], before=first, limit=1)
        assert some == found[1:]
        assert record_states(connection, "goods", dict.fromkeys(key, "0"), ["value"]) == []
