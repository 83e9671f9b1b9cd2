"""Resources over HTTP: pages, filters, order, streams, history, and invalid requests."""

import base64
import csv
import datetime as dt
import io
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from pydantic import BaseModel
from scrapy.settings import Settings
from sqlalchemy import Engine
from starlette.testclient import TestClient

from catlog_scrapy.api.maintenance import MaintenanceThread
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources import index_warnings
from catlog_scrapy.api.resources.index_warnings import INDEX_USE_AGE_S
from catlog_scrapy.api.resources.lists import ListRoute
from catlog_scrapy.api.resources.streams import MAX_CALLER_STREAMS, MAX_STREAMS, StreamSlots
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.declarations.resources import Resources, read_resources
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.access.keys import add_key, revoke_key
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue.attempts import complete
from catlog_scrapy.store.queue.report import Report
from tests.integration.test_time_travel import given_views
from tests.support.executor import application
from tests.support.factories import (
    an_operation,
    claim_of,
    given_a_catalog,
    given_a_scheme,
    given_fields,
    load,
    load_records,
    one,
    send_rows,
    sql,
)

FIELDS = {"id": "bigint", "name": "text", "price": "numeric", "made": "date", "tags": "jsonb"}
CHEAP = "SELECT id, name, price FROM public.goods WHERE price < 10"
RESOURCES = """
[resources]
goods.view = "goods"
goods.key = "id"
goods.search = ["name"]
goods.read = ["user", "service"]
goods.hidden = { price = ["user"] }
cheap-goods = { view = "cheap", key = "id", read = ["user"] }
named-goods = { view = "goods", key = "name", read = ["user"] }
"""
GOODS: list[dict[str, Any]] = [
    {"id": 1, "name": "Lamp", "price": 12.5, "made": "2026-01-01", "tags": ["a"]},
    {"id": 2, "name": "100% wool", "price": None, "made": "2026-01-02", "tags": []},
    {"id": 3, "name": "a_b\\c", "price": 3, "made": None, "tags": None},
    {"id": 4, "name": "Лампа", "price": 3, "made": "2025-12-31", "tags": {"x": 1}},
    {"id": 5, "name": None, "price": 99999999999999.25, "made": "2026-01-02", "tags": 1},
]


def load_goods(engine: Engine, goods: Sequence[dict[str, Any]] = GOODS) -> None:
    """Load and publish all goods."""
    assert load_records(engine, goods)["state"] == "loaded"


def declared(folder: Path, text: str = RESOURCES) -> Resources:
    (folder / "resources.toml").write_text(text)
    return read_resources(Settings({"CATLOG_RESOURCES": str(folder / "resources.toml")}))


@pytest.fixture(autouse=True)
def no_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable maintenance, which may start or publish a load before the test does."""
    monkeypatch.setattr(MaintenanceThread, "_run", lambda self: None)


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[TestClient]:
    """Return an admin's client of a server with the goods."""
    given_a_scheme(engine, an_operation(tolerate={"removed": 1.0}))
    given_fields(engine, FIELDS)
    given_views(engine, {"cheap": CHEAP})
    load_goods(engine)
    app = application(engine, declared(tmp_path), CATLOG_HOME=str(tmp_path), CATLOG_POLL=60)
    with TestClient(app, base_url="http://127.0.0.1/api/v1") as made:
        made.headers["Authorization"] = f"Bearer {add_key(engine, 'root', 'admin')}"
        yield made


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["results"]]


def walk(client: TestClient, url: str, way: str = "next") -> Iterator[dict[str, Any]]:
    """Yield the pages from *url* on, forwards or backwards."""
    following: str | None = url
    while following:
        answer = client.get(following)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page
        following = page[way]


def test_row_has_the_loaded_values(client: TestClient) -> None:
    row = client.get("/goods/1").json()
    assert {name: row[name] for name in FIELDS} == GOODS[0]
    assert client.get("/goods/5").text.count('"price":99999999999999.25') == 1
    assert set(row) == {*FIELDS, "created_at", "updated_at", "provider"}
    assert client.get("/goods/6").status_code == 404


def test_pages_by_limit_and_offset(client: TestClient) -> None:
    pages = list(walk(client, "/goods?limit=2"))
    assert [len(page["results"]) for page in pages] == [2, 2, 1]
    assert {page["count"] for page in pages} == {5}
    assert pages[1]["previous"] == "http://127.0.0.1/api/v1/goods?limit=2&offset=0"
    assert ids(client.get("/goods?limit=2&offset=100")) == []


ORDERS = ("", "id", "-id", "price", "-price", "made,-price", "-name", "-made,name,price")


def test_cursors_walk_through_the_whole_listing_and_back(client: TestClient) -> None:
    """Pages by cursor equal the unpaged listing, with null values too."""
    for order, limit in itertools.product(ORDERS, (1, 2, 5)):
        check_cursors(client, order, limit)


def check_cursors(client: TestClient, order: str, limit: int) -> None:
    asked = f"/goods?order={order}" if order else "/goods?"
    whole = ids(client.get(asked))
    pages = list(walk(client, f"{asked}&limit={limit}&cursor="))
    assert [each["id"] for page in pages for each in page["results"]] == whole
    assert "count" not in pages[0]
    assert pages[0]["previous"] is None
    back = list(walk(client, pages[-1]["previous"], "previous")) if len(pages) > 1 else []
    found = [*itertools.chain(*([e["id"] for e in page["results"]] for page in back[::-1]))]
    assert found == whole[: len(found)]
    assert len(found) == limit * (len(pages) - 1)


FILTERS = [
    ("id=2&id=4", [2, 4]),
    ("price=3", [3, 4]),
    ("price__lt=12.5", [3, 4]),
    ("price__gte=3&price__lte=12.5&order=id", [1, 3, 4]),
    ("price__gt=12.5", [5]),
    ("price__null=true", [2]),
    ("made__null=false&price__null=false", [1, 4, 5]),
    ("made=2026-01-02", [2, 5]),
    ("made__lt=2026-01-01", [4]),
    ("search=lamp", [1]),
    ("search=%D0%BB%D0%B0%D0%BC", [4]),
    ("search=100%25", [2]),
    ("search=_", [3]),
    ("search=%5C", [3]),
    ("name=Lamp&search=zzz", []),
    ("name=%27%20OR%201%3D1%20--", []),
]


def test_filters_select_rows(client: TestClient) -> None:
    for asked, expected in FILTERS:
        answer = client.get(f"/goods?{asked}")
        assert sorted(ids(answer)) == expected, asked
        assert answer.json()["count"] == len(expected)


A_WRONG_PARAMETER_IS_NAMED = [
    ("limit=0", "query.limit"),
    ("limit=1001", "query.limit"),
    ("offset=-1", "query.offset"),
    ("colour=red", "query.colour"),
    ("id=x", "query.id.0"),
    ("id=9223372036854775808", "query.id.0"),
    ("price=1e999999", "query.price.0"),
    ("price=NaN", "query.price.0"),
    ("made=yesterday", "query.made.0"),
    ("name=%00", "query.name.0"),
    ("order=colour", "query.order"),
    ("order=tags", "query.order"),
    ("fields=colour", "query.fields"),
    ("cursor=x", "query.cursor"),
    ("cursor=W10%3D", "query.cursor"),
    ("cursor=&format=csv", "query.cursor"),
    ("limit=1&format=ndjson", "query.limit"),
    ("format=xml", "query.format"),
    ("as_of=2026-01-01T00:00", "query.as_of"),
    ("cursor=&offset=1", "query.offset"),
]


def test_error_names_the_invalid_parameter(client: TestClient) -> None:
    for asked, field in A_WRONG_PARAMETER_IS_NAMED:
        answer = client.get(f"/goods?{asked}")
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert answer.headers["content-type"] == "application/problem+json"


def test_former_column_name_is_refused_with_the_current_name(client: TestClient) -> None:
    for query in ("whole=true", "whole__null=true", "fields=id,whole", "order=-whole"):
        answer = client.get(f"/catalogs?{query}")
        assert answer.status_code == 422, query
        [error] = answer.json()["errors"]
        assert error["message"] == "whole is now is_full"
    [error] = client.get("/goods?whole=true").json()["errors"]
    assert error["message"] == "is not a parameter of this path"


def test_cursor_of_another_order_is_refused(client: TestClient) -> None:
    following = client.get("/goods?limit=1&cursor=&order=price").json()["next"]
    answer = client.get(following.replace("order=price", "order=name"))
    assert answer.status_code == 422
    assert "another order" in answer.text


def test_forged_cursor_is_refused(client: TestClient) -> None:
    """Cursors are not secret, so a client can forge a cursor of another type."""
    following = client.get("/goods?limit=1&cursor=&order=price").json()["next"]
    made = following.partition("cursor=")[2]
    digest, _, position = orjson.loads(base64.urlsafe_b64decode(made.replace("%3D", "=")))
    forged = orjson.dumps([digest, False, ["x", *position[1:]]])
    cursor = base64.urlsafe_b64encode(forged).decode()
    assert client.get(f"/goods?cursor={quote(cursor)}&order=price").status_code == 422


def test_streams_have_the_whole_listing(client: TestClient) -> None:
    whole = client.get("/goods?order=-id").json()["results"]
    lines = client.get("/goods?order=-id&format=ndjson")
    assert [orjson.loads(line) for line in lines.text.splitlines()] == whole
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    by_accept = client.get("/goods?order=-id", headers={"Accept": "application/x-ndjson"})
    assert by_accept.text == lines.text
    table = client.get("/goods?order=-id&format=csv&fields=id,name,price&price=3")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert rows == [
        {"id": "4", "name": "Лампа", "price": "3"},
        {"id": "3", "name": "a_b\\c", "price": "3"},
    ]
    assert client.get("/goods?id=77&format=ndjson").text == ""


WHAT_CLIENTS_ACCEPT = {
    "text/csv": "text/csv",
    "text/csv, application/json": "text/csv",
    "application/json, text/csv": "application/json",
    "text/csv;q=0, application/json": "application/json",
    "application/json;q=0.1, Text/CSV ; q=0.5": "text/csv",
    "application/x-ndjson;q=0.9, text/csv;q=0.5": "application/x-ndjson",
    "text/*": "text/csv",
    "text/csv;q=0, */*;q=0.1": "application/json",
    "*/*": "application/json",
    "text/html, */*;q=0.8": "application/json",
    "text/csv;q=much": "application/json",
    "image/png": "application/json",
    "": "application/json",
}


def test_accept_header_selects_the_format(client: TestClient) -> None:
    for accept, media_type in WHAT_CLIENTS_ACCEPT.items():
        answer = client.get("/goods?fields=id", headers={"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == media_type, accept


def test_empty_page_has_no_links(client: TestClient) -> None:
    said = client.get("/goods?id=77&cursor=").json()
    assert said == {"next": None, "previous": None, "results": []}


def test_etag_stays_until_rows_change(client: TestClient, engine: Engine) -> None:
    first = client.get("/cheap-goods")
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get("/cheap-goods", headers=tag).status_code == 304
    load_goods(engine)
    assert client.get("/cheap-goods", headers=tag).status_code == 304
    load_goods(engine, GOODS[:3])
    again = client.get("/cheap-goods", headers=tag)
    assert again.status_code == 200
    assert again.headers["etag"] != first.headers["etag"]
    assert ids(again) == [3]
    assert again.json()["count"] == 1


def test_new_view_changes_the_etag(client: TestClient, engine: Engine) -> None:
    """The ETag also depends on the kinds that the new view reads."""
    client.get("/cheap-goods")
    given_a_scheme(engine, an_operation("makers"), name="makers")
    fields = '[{"name": "value", "type": "jsonb"}]'
    sql(engine, f"UPDATE catlog.kind SET fields = '{fields}' WHERE name = 'makers'")
    given_views(engine, {"cheap": f"{CHEAP} AND NOT EXISTS (SELECT FROM public.makers)"})
    tag = {"If-None-Match": client.get("/cheap-goods").headers["etag"]}
    assert client.get("/cheap-goods", headers=tag).status_code == 304
    load(engine, {"one": 1}, scheme="makers")
    answer = client.get("/cheap-goods", headers=tag)
    assert answer.status_code == 200
    assert ids(answer) == []


def test_as_of_shows_former_rows(client: TestClient, engine: Engine) -> None:
    before = one(engine, "SELECT clock_timestamp()")
    load_goods(engine, [{**GOODS[2], "price": 4}, *GOODS[3:]])
    then = quote(before.isoformat())
    assert ids(client.get(f"/goods?as_of={then}&order=id")) == [1, 2, 3, 4, 5]
    assert ids(client.get("/goods?order=id")) == [3, 4, 5]
    assert client.get(f"/goods/3?as_of={then}").json()["price"] == 3
    assert client.get(f"/goods/1?as_of={then}").status_code == 200
    assert client.get("/goods/1").status_code == 404
    lines = client.get(f"/goods?as_of={then}&format=ndjson&fields=id").text.splitlines()
    assert len(lines) == 5
    pages = list(walk(client, f"/goods?as_of={then}&order=price&limit=2&cursor="))
    assert sorted(each["id"] for page in pages for each in page["results"]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("path", ["goods", "cheap-goods"])
def test_history_lists_the_states_of_a_row(client: TestClient, engine: Engine, path: str) -> None:
    """A record, and a row of a view, are changed, removed and restored."""
    load_goods(engine, [{**GOODS[2], "price": 4}])
    load_goods(engine, [GOODS[0]])
    load_goods(engine, [{**GOODS[2], "price": 5}])
    load_goods(engine, [{**GOODS[2], "price": 5}, GOODS[1]])
    states = client.get(f"/{path}/3/history").json()["results"]
    assert [(s["price"], s["change"]) for s in states] == [
        (5, None),
        (4, "removed"),
        (3, "changed"),
    ]
    assert states[2]["valid_to"] == states[1]["valid_from"]
    assert states[1]["valid_to"] < states[0]["valid_from"]
    assert states[0]["valid_to"] is None
    told = [s for page in walk(client, f"/{path}/3/history?limit=1") for s in page["results"]]
    # A state of a view that goes on over several moments is told in parts.
    merged = [k for k, _ in itertools.groupby(s["price"] for s in told)]
    assert merged == [5, 4, 3]
    assert told[0]["valid_to"] is None
    assert all(s["valid_to"] for s in told[1:])
    assert client.get(f"/{path}/77/history").status_code == 404


def test_row_is_found_by_a_key_with_special_characters(
    client: TestClient, engine: Engine, tmp_path: Path
) -> None:
    names = ["a/b", "a%2Fb", "a b", "ä", "?", "#", "..", "a%"]
    load_goods(engine, [{**GOODS[0], "id": n, "name": name} for n, name in enumerate(names)])
    by_name = RESOURCES.replace('goods.key = "id"', 'goods.key = "name"')
    app = application(engine, declared(tmp_path, by_name), CATLOG_HOME=str(tmp_path))
    with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
        for name in names[:6] + names[7:]:
            found = other.get(f"/goods/{quote(name, safe='')}")
            assert found.status_code == 200, name
            assert found.json()["name"] == name


def test_hidden_column_cannot_be_queried(client: TestClient, engine: Engine) -> None:
    client.headers["Authorization"] = f"Bearer {add_key(engine, 'eve', 'user')}"
    assert "price" not in client.get("/goods").text
    for asked in ("price=3", "price__gt=1", "order=price", "fields=price"):
        answer = client.get(f"/goods?{asked}")
        assert answer.status_code == 422, asked
        assert "12.5" not in answer.text
    for path in ("/goods?format=csv", "/goods?format=ndjson", "/goods/1", "/goods/1/history"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "price" not in answer.text
        assert "12.5" not in answer.text


A_WRONG_DECLARATION_IS_REFUSED = [
    ("[resources]\ngoods = { view = 'nothing', key = 'id' }", 'view "nothing" does not exist'),
    ("[resources]\ngoods = { view = 'goods', key = 'colour' }", 'no column "colour"'),
    ("[resources]\ngoods = { view = 'goods', key = 'tags' }", "no URL can hold"),
    ("[resources]\ngoods = { view = 'goods', key = 'id', search = ['id'] }", "type is not text"),
    ("[resources]\ngoods = { view = 'goods', key = 'id', hidden = { x = ['user'] } }", '"x"'),
    ("[resources]\ngoods = { view = 'goods' }", "resources.goods.key"),
    ("[resources]\ngoods = { view = 'goods', key = 'id', red = true }", "resources.goods.red"),
    ("[resources]\ncatalogs = { view = 'goods', key = 'id' }", "the server itself uses the path"),
    ("[resources]\n'a/b' = { view = 'goods', key = 'id' }", "is not a valid path"),
    (
        "[resources]\ngoods = { view = 'goods', key = 'id', read = ['guest'] }",
        "is not a valid role",
    ),
    ("[resources]\ngoods = { view = 'goods', key = 'id', model = 'json.nope' }", "model"),
    ("[resources]\ngoods = { view = 'goods', key = 'id', model = 'json.dumps' }", "pydantic"),
    ("[roles]\nuser = ['read everything']", "is not a valid permission"),
    ("[roles]\nguest = []", "is not a valid role"),
    ("[roles]\nuser = ['goodz:read']", "unknown resource 'goodz'"),
    (
        "[resources]\ngoods = { view = 'goods', key = 'id', hidden = { id = ['user'] } }",
        "part of the key",
    ),
    (
        "[resources]\ngoods = { view = 'goods', key = 'name', hidden = { id = ['user'] } }",
        "key of its records",
    ),
    ("[resources]\nodd = { view = 'odd', key = 'id' }", "rename it in the view"),
    (
        "[resources]\nodd = { view = 'odd', key = 'id', fields = ['to :b'] }",
        "rename it in the view",
    ),
    ("[resources", "correct the TOML syntax"),
]


def test_resource_that_does_not_fit_its_view_is_refused(
    engine: Engine, tmp_path: Path, client: TestClient
) -> None:
    given_own_views(engine, odd="""SELECT 1 AS id, 2 AS "to :b", 3 AS "a""b" """)
    for text, said in A_WRONG_DECLARATION_IS_REFUSED:
        with pytest.raises(DeclarationError, match=r"resources\.toml") as refused:
            application(engine, declared(tmp_path, text), CATLOG_HOME=str(tmp_path))
        assert said in str(refused.value)


def test_resource_whose_view_is_gone_keeps_no_other_from_being_served(
    engine: Engine, tmp_path: Path, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    sql(engine, "DROP VIEW public.cheap CASCADE")
    app = application(engine, declared(tmp_path), CATLOG_HOME=str(tmp_path))
    assert 'resources.cheap-goods: the view "cheap" does not exist' in caplog.text
    with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
        assert other.get("/goods").json()["count"] == len(GOODS)
        assert other.get("/catalogs").status_code == 200
        for path in ("/cheap-goods", "/cheap-goods/1", "/cheap-goods/1/history"):
            answer = other.get(path)
            assert answer.status_code == 503, path
            assert "does not fit its view; run scrapy apply" in answer.text
        assert other.get("/cheap-goods", headers={"Authorization": ""}).status_code == 401
        assert "cheap-goods" not in other.get("http://127.0.0.1/openapi.json").text


def test_resource_whose_column_is_gone_is_not_served(
    engine: Engine, tmp_path: Path, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for resource, mistake in (
        ("key = 'colour'", 'has no column "colour"'),
        ("key = 'id', fields = ['size']", 'no column "size"'),
        ("key = 'id', hidden = { x = ['user'] }", '"x"'),
    ):
        text = "[resources]\ngoods = { view = 'goods', key = 'id' }\n"
        text += f"cheap = {{ view = 'cheap', {resource} }}"
        app = application(engine, declared(tmp_path, text), CATLOG_HOME=str(tmp_path))
        assert mistake in caplog.text
        with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
            assert other.get("/goods").status_code == 200
            assert other.get("/cheap").status_code == 503


class Part(BaseModel):
    rebate: int = 0


class Good(BaseModel):
    """Row with a nested model that only a hidden field has."""

    id: int
    name: str | None = None
    margin: Part = Part()


def test_openapi_document_names_no_hidden_column(
    engine: Engine, tmp_path: Path, client: TestClient
) -> None:
    given_own_views(engine, secret="SELECT 1 AS id, 'x' AS margin, 'y' AS name")
    hidden = '{ view = "secret", key = "id", search = ["margin", "name"]'
    hidden += ', hidden = { margin = ["user"] }'
    model = ', model = "tests.integration.test_resources.Good"'
    text = f"{RESOURCES}\nplain = {hidden} }}\nmodelled = {hidden}{model} }}"
    app = application(engine, declared(tmp_path, text), CATLOG_HOME=str(tmp_path))
    with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
        document = other.get("http://127.0.0.1/openapi.json")
        for name in ("margin", "rebate"):
            assert name not in document.text, name
        parameters = document.json()["paths"]["/api/v1/goods"]["get"]["parameters"]
        names = {each["name"] for each in parameters}
        assert "name" in names
        assert not [name for name in names if name.startswith("price")]
        assert "price" not in document.json()["components"]["schemas"]["goods"]["properties"]
        assert other.get("/plain?margin=x&search=X").json()["count"] == 1, "an admin may"


def test_hidden_column_and_unknown_column_are_refused_alike(
    client: TestClient, engine: Engine
) -> None:
    client.headers["Authorization"] = f"Bearer {add_key(engine, 'eve', 'user')}"
    for form in ("{}=3", "{}=x", "{}__gt=1", "{}__gt=x", "{}__null=maybe", "order={}", "fields={}"):
        answers = [client.get("/goods?" + form.format(name)) for name in ("price", "pricf")]
        assert {answer.status_code for answer in answers} == {422}
        assert answers[0].text.replace("price", "pricf") == answers[1].text


def test_column_with_the_name_of_a_parameter_is_filtered_by_eq(
    engine: Engine, tmp_path: Path, client: TestClient
) -> None:
    given_own_views(
        engine,
        odd="""SELECT n AS id, n * 10 AS "limit", 'o' || n AS "order", n AS "a__gt", n AS a
               FROM generate_series(1, 5) AS n""",
    )
    text = "[resources]\nodd = { view = 'odd', key = 'id' }"
    app = application(engine, declared(tmp_path, text), CATLOG_HOME=str(tmp_path))
    with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
        assert ids(other.get("/odd?limit__eq=20&limit=5")) == [2]
        assert ids(other.get("/odd?limit__eq=20&limit__eq=30&order=-id")) == [3, 2]
        assert ids(other.get("/odd?limit__gte=40")) == [4, 5]
        assert ids(other.get("/odd?order__eq=o1")) == [1]
        assert ids(other.get("/odd?a__gt=3")) == [4, 5]
        assert ids(other.get("/odd?a__gt__eq=3")) == [3]
        parameters = other.get("http://127.0.0.1/openapi.json").json()["paths"]["/api/v1/odd"]
        assert "limit__eq" in {each["name"] for each in parameters["get"]["parameters"]}


def test_one_caller_cannot_hold_all_streams() -> None:
    slots = StreamSlots()
    for _ in range(MAX_CALLER_STREAMS):
        slots.acquire("key:greedy")
    with pytest.raises(Problem, match="at most 8 for each user or key"):
        slots.acquire("key:greedy")
    others = (MAX_STREAMS - MAX_CALLER_STREAMS) // MAX_CALLER_STREAMS
    for number in range(others):
        for _ in range(MAX_CALLER_STREAMS):
            slots.acquire(f"key:{number}")
    with pytest.raises(Problem, match=f"at most {MAX_STREAMS}"):
        slots.acquire("key:late")
    slots.release("key:greedy")
    slots.acquire("key:late")


def test_view_dropped_under_the_server_gives_503(client: TestClient, engine: Engine) -> None:
    sql(engine, "DROP VIEW public.cheap CASCADE")
    answer = client.get("/cheap-goods")
    assert answer.status_code == 503
    assert "views have changed" in answer.text


def test_results_are_listed_once_their_catalog_is_loaded(
    client: TestClient, engine: Engine
) -> None:
    before = client.get("/catalog_results").json()["count"]
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog)
    send_rows(engine, claimed.attempt, "goods", [("1", 1)])
    assert client.get(f"/catalog_results?catalog_id={catalog}").json()["count"] == 0
    complete(engine, claimed.attempt, Report(accepted=1))
    assert client.get(f"/catalog_results?catalog_id={catalog}").json()["count"] == 0
    publishing.publish(engine, catalog)
    assert client.get(f"/catalog_results?catalog_id={catalog}").json()["count"] == 1
    assert client.get("/catalog_results").json()["count"] == before + 1


def test_every_listing_responds(client: TestClient) -> None:
    """Test each listing with and without the prefix and a final slash."""
    for path in ("providers", "catalogs", "catalog_schemes", "catalog_scheme_operations"):
        said = client.get(f"/{path}?limit=1").json()
        assert said["count"] >= 1
        for url in (f"http://127.0.0.1/{path}/?limit=1", f"/{path}/?limit=1"):
            assert client.get(url).json()["results"] == said["results"]
        row = said["results"][0]
        assert client.get(f"/{path}/{row['id']}").json() == row
    [attempt] = client.get("/catalog_scheme_operation_instances").json()["results"]
    assert attempt["outcome"] == "done"
    assert client.head("/catalogs").status_code == 200
    assert dt.datetime.fromisoformat(client.get("/catalogs").json()["results"][0]["created_at"])


def test_page_stays_the_same_until_a_record_changes(client: TestClient, engine: Engine) -> None:
    urls = ("/goods", "/goods?price__lt=10", "/goods?cursor=", "/goods?id=77", "/goods?offset=9")
    first = [client.get(url) for url in urls]
    again = [client.get(url) for url in urls]
    assert [(page.content, page.headers["etag"]) for page in again] == [
        (page.content, page.headers["etag"]) for page in first
    ]
    load_goods(engine, GOODS[:3])
    changed = [client.get(url) for url in urls]
    assert [page.json().get("count") for page in changed] == [3, 1, None, 0, 3]
    assert [sorted(ids(page)) for page in changed] == [[1, 2, 3], [3], [1, 2, 3], [], []]
    assert not {page.headers["etag"] for page in changed} & {page.headers["etag"] for page in first}


@pytest.fixture
def quick(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Return a client whose lists have to be read without a thread."""
    for url in ("/goods", "/cheap-goods", "/catalogs"):
        assert client.get(url).status_code == 200
    for method in ("_page", "_stream"):
        monkeypatch.delattr(ListRoute, method)
    return client


def test_page_of_a_known_caller_takes_no_thread(quick: TestClient) -> None:
    for _ in range(2):
        page = quick.get("/goods?limit=2&order=id")
        assert ids(page) == [1, 2]
        assert page.json()["count"] == 5
        assert quick.get("/catalogs").json()["count"] == 1
    empty = quick.get("/goods?id=77")
    assert ids(empty) == []
    assert (empty.json()["count"], "etag" in empty.headers) == (0, True)
    page = quick.get("/cheap-goods?limit=2&order=id")
    tag = {"If-None-Match": page.headers["etag"]}
    assert quick.get("/cheap-goods?limit=2&order=id", headers=tag).status_code == 304
    assert quick.get("/cheap-goods?limit=1", headers=tag).status_code == 200


def test_long_request_is_parsed_in_a_thread(client: TestClient) -> None:
    long = "&".join(f"id={n}" for n in range(99)) + "&order=" + "id," * 300 + "id"
    for url, pages in ((f"/goods?{long}", 1), (f"/goods?{long}&fields=" + "id," * 2500, 0)):
        client.get(url)
        with counted_statements() as statements:
            client.get(url)
        assert sum("LIMIT" in sql for sql in statements) == pages


def test_count_as_of_a_time_changes_with_publishes_and_pruning(
    quick: TestClient, engine: Engine
) -> None:
    before = one(engine, "SELECT clock_timestamp()")
    load_goods(engine, GOODS[3:])
    url = f"/goods?limit=2&as_of={quote(before.isoformat())}"
    with counted_statements() as statements:
        assert [quick.get(url).json()["count"] for _ in range(3)] == [5, 5, 5]
        assert [ids(quick.get(f"{url}&offset=4")), quick.get(f"{url}&id=1").json()["count"]]
    assert ["count(*)" in sql for sql in statements] == [True, False, False, False, True]
    tag = {"If-None-Match": quick.get(url).headers["etag"]}
    with counted_statements() as statements:
        assert quick.get(url, headers=tag).status_code == 304
    assert len(statements) == 1
    ahead = "/goods?limit=2&as_of=2100-01-01T00:00Z"
    assert quick.get(ahead).json()["count"] == 2
    load_goods(engine, GOODS[2:])
    assert quick.get(ahead).json()["count"] == 3
    assert quick.get(url).json()["count"] == 5
    sql(engine, "UPDATE catlog.catalog_scheme_operation SET keep = 0")
    assert prune(engine).versions
    pruned = quick.get(url, headers=tag)
    assert pruned.json()["count"] < 5
    assert pruned.headers["etag"] != tag["If-None-Match"]


def test_page_of_a_known_caller_warns_of_a_missing_index(
    engine: Engine, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(engine, "ANALYZE records.goods")
    client = serve(RESOURCES, CATLOG_API_LARGE=5)
    assert client.get("/goods").status_code == 200
    monkeypatch.delattr(ListRoute, "_page")
    clock = time.monotonic()
    for later_s, expected in ((0, True), (INDEX_USE_AGE_S / 2, True), (INDEX_USE_AGE_S + 1, False)):
        monkeypatch.setattr(index_warnings, "monotonic", lambda now=clock + later_s: now)
        for _ in range(2):
            assert ("catlog-warning" in client.get("/goods?price=3").headers) == expected
        sql(engine, "CREATE INDEX IF NOT EXISTS by_price ON records.goods (price)")


def test_pages_of_two_branches_without_a_thread_are_in_order(quick: TestClient) -> None:
    """Rows with and without a value come from two SELECTs, whatever the size of the pages."""
    then = quote(dt.datetime.now(dt.UTC).isoformat())
    for asked in ("/goods?order=price", "/goods?order=-price", f"/goods?order=made&as_of={then}"):
        everything = ids(quick.get(f"{asked}&limit=5"))
        assert sorted(everything) == [1, 2, 3, 4, 5]
        for limit in (1, 2, 4):
            pages = list(walk(quick, f"{asked}&limit={limit}&cursor="))
            assert [row["id"] for page in pages for row in page["results"]] == everything
            offsets = [ids(quick.get(f"{asked}&limit={limit}&offset={n}")) for n in range(6)]
            assert offsets == [everything[n : n + limit] for n in range(6)]


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Record the statements that read pages without a thread."""
    sent: list[str] = []
    rows = StatementPool.rows

    async def record(self: StatementPool, sql: str, values: Any) -> Any:
        sent.append(sql)
        return await rows(self, sql, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatementPool, "rows", record)
        yield sent


def test_changed_credentials_count_at_once(client: TestClient, engine: Engine) -> None:
    """No response, not even that of an invalid request, goes to a caller who lost the right."""
    headers = {"Authorization": f"Bearer {add_key(engine, 'robot', 'user')}"}
    urls = ("/goods", "/goods?limit=x", "/goods?id=77", "/goods/1", "/goods/1/history", "/catalogs")

    def statuses() -> list[int]:
        return [client.get(url, headers=headers).status_code for url in urls]

    assert statuses() == statuses() == [200, 422, 200, 200, 200, 403]
    assert "price" not in client.get("/goods", headers=headers).text
    sql(engine, "UPDATE catlog.api_key SET role = 'service' WHERE name = 'robot'")
    assert "price" in client.get("/goods", headers=headers).text
    sql(engine, "UPDATE catlog.api_key SET scopes = '[\"catalogs:read\"]' WHERE name = 'robot'")
    assert statuses() == statuses() == [403, 403, 403, 403, 403, 200]
    sql(engine, "UPDATE catlog.api_key SET scopes = NULL WHERE name = 'robot'")
    assert statuses()[0] == 200
    revoke_key(engine, "robot")
    assert statuses() == [401] * len(urls)


def test_use_of_a_known_key_is_stored_again_after_a_minute(
    client: TestClient, engine: Engine
) -> None:
    client.get("/goods")
    sql(engine, "UPDATE catlog.api_key SET last_used_at = last_used_at - interval '61 s'")
    before = one(engine, "SELECT last_used_at FROM catlog.api_key")
    client.get("/goods")
    assert one(engine, "SELECT last_used_at FROM catlog.api_key") > before


def test_record_is_found_by_another_form_of_its_key(client: TestClient, engine: Engine) -> None:
    then = quote(str(one(engine, "SELECT clock_timestamp()")))
    sql(engine, "UPDATE records.goods SET _id = gen_random_uuid() WHERE id = 3")
    for path in ("/goods/1", "/goods/3", f"/goods/1?as_of={then}", f"/goods/3?as_of={then}"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == int(path[7])
    assert client.get("/goods/77").status_code == 404
    assert client.get(f"/goods/1?as_of={quote('2020-01-01T00:00Z')}").status_code == 404


def test_resource_key_may_differ_from_record_key(client: TestClient) -> None:
    assert client.get("/named-goods/Lamp").json()["id"] == 1
    [state] = client.get("/named-goods/Lamp/history").json()["results"]
    assert (state["id"], state["change"]) == (1, None)


def test_stored_media_files_are_served(client: TestClient, engine: Engine, tmp_path: Path) -> None:
    kept = tmp_path / "media" / "full"
    kept.mkdir(parents=True)
    (kept / "a.png").write_bytes(b"picture")
    (tmp_path / "secret").write_text("nobody may read this")
    answer = client.get("/media/full/a.png")
    assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/png")
    tag = {"If-None-Match": answer.headers["etag"]}
    assert client.get("/media/full/a.png", headers=tag).status_code == 304
    for path in ("full/b.png", "full", "..%2Fsecret", "%2e%2e/secret", "full/..%2f..%2fsecret"):
        assert client.get(f"/media/{path}").status_code == 404, path
    del client.headers["Authorization"]
    assert client.get("/media/full/a.png").status_code == 401


def test_key_of_several_rows_gives_409(client: TestClient, engine: Engine, tmp_path: Path) -> None:
    by_price = RESOURCES.replace('goods.key = "id"', 'goods.key = "made"')
    app = application(engine, declared(tmp_path, by_price), CATLOG_HOME=str(tmp_path))
    with TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers) as other:
        assert other.get("/goods/2025-12-31").json()["id"] == 4
        assert other.get("/goods/2026-01-02").status_code == 409


def test_row_refuses_list_parameters(client: TestClient) -> None:
    for asked in ("/goods/1?fields=id", "/goods/1/history?as_of=2026-11-01T00:00Z"):
        assert client.get(asked).status_code == 422
    # A plus sign that nobody escaped.
    assert ids(client.get("/goods?as_of=2030-11-01T00:00:00+00:00&id=1")) == [1]


def given_own_views(engine: Engine, **views: str) -> None:
    given_views(engine, {"cheap": CHEAP} | views)


@pytest.fixture
def serve(
    client: TestClient, engine: Engine, tmp_path: Path
) -> Iterator[Callable[..., TestClient]]:
    """Return a function that starts a server and returns an admin's client of it."""
    with ExitStack() as stack:

        def served(text: str, **settings: Any) -> TestClient:
            known = {"CATLOG_HOME": str(tmp_path), "CATLOG_POLL": 60} | settings
            app = application(engine, declared(tmp_path, text), **known)
            made = TestClient(app, base_url="http://127.0.0.1/api/v1", headers=client.headers)
            return stack.enter_context(made)

        yield served


def test_count_and_etag_of_the_past_change_with_publishes_and_pruning(
    client: TestClient, engine: Engine
) -> None:
    then = quote(str(one(engine, "SELECT clock_timestamp()")))
    load_goods(engine, GOODS[:2])
    url = f"/goods?as_of={then}"
    first = client.get(url)
    assert first.json()["count"] == 5
    etag = first.headers["etag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    now = client.get("/goods")
    assert (now.json()["count"], now.headers["etag"] == etag) == (2, False)
    assert client.get(url).headers["etag"] == etag
    sql(engine, "UPDATE catlog.catalog_scheme_operation SET keep = 3600")
    sql(engine, "UPDATE records.goods_versions SET _valid_to = _valid_to - interval '2 h'")
    assert prune(engine).versions == 3
    pruned = client.get(url)
    assert pruned.json()["count"] == 2
    assert pruned.headers["etag"] != etag


def test_page_of_a_large_kind_without_an_index_has_a_warning(
    engine: Engine, serve: Callable[..., TestClient]
) -> None:
    sql(engine, "CREATE INDEX ON records.goods (price); CREATE INDEX ON records.goods (name, made)")
    sql(engine, "ANALYZE records.goods")
    for large, expected in ((5, True), (6, False)):
        client = serve(RESOURCES, CATLOG_API_LARGE=large)
        for query, missing in (
            ("", None),
            ("limit=2&offset=2", None),
            ("id=1", "filter by id"),
            ("made__gte=2026-01-01&order=price", "filter by made"),
            ("id=1&price=3", None),
            ("name=Lamp", None),
            ("order=-made", "order by made"),
            ("order=-price,made", None),
            ("order=updated_at", "order by updated_at"),
        ):
            warning = client.get(f"/goods?{query}").headers.get("catlog-warning")
            said = f"no index supports the {missing}" if expected and missing else None
            assert warning == said, query


def test_line_of_a_stream_is_a_single_row(engine: Engine, serve: Callable[..., TestClient]) -> None:
    """Line breaks inside json values must not break the line format."""
    broken = "SELECT n, json(E'[1,\\n\\r2, \"\\\\n\"]') AS parts FROM generate_series(1, 2) AS n"
    given_own_views(engine, broken=broken)
    client = serve("[resources]\nbroken = { view = 'broken', key = 'n' }")
    lines = client.get("/broken?format=ndjson").text.splitlines()
    assert [orjson.loads(line) for line in lines] == [
        {"n": n, "parts": [1, 2, "\n"]} for n in (1, 2)
    ]


def test_rows_show_times_that_python_cannot_hold(
    engine: Engine, serve: Callable[..., TestClient]
) -> None:
    times = ["-infinity", "0044-03-15T00:00:00+00:00 BC", "10000-01-01T00:00:00+00:00", "infinity"]
    values = ", ".join(f"({n}, '{time}'::timestamptz)" for n, time in enumerate(times))
    given_own_views(engine, times=f"SELECT n, at FROM (VALUES {values}) AS t (n, at)")
    client = serve("[resources]\ntimes = { view = 'times', key = 'n' }")
    rows = client.get("/times").json()["results"]
    assert [row["at"] for row in rows] == times
    pages = walk(client, "/times?order=at&limit=1")
    assert [page["results"][0]["at"] for page in pages] == times
    assert [client.get(f"/times/{n}").json()["at"] for n in range(4)] == times
    assert "infinity" in client.get("/times?format=csv").text


def test_next_page_of_a_history_is_of_the_same_record(
    client: TestClient, engine: Engine, serve: Callable[..., TestClient]
) -> None:
    names = ["a%41", "aA", "a/b", "..", "ä b"]
    for price in (1, 2):
        load_goods(
            engine,
            [{"id": n, "name": name, "price": price} for n, name in enumerate(names, 10)],
        )
    client = serve("[resources]\nnamed = { view = 'goods', key = ['id', 'name'] }")
    for n, name in enumerate(names, 10):
        escaped = quote(name, safe="").replace(".", "%2E")
        pages = list(walk(client, f"/named/{n}/{escaped}/history?limit=1"))
        assert [s["name"] for page in pages for s in page["results"]] == [name] * 2, name


def test_history_keeps_the_precision_of_numbers(client: TestClient, engine: Engine) -> None:
    large = 12345678901234567890123456789
    load_goods(engine, [GOODS[0]])
    sql(
        engine,
        "UPDATE records.goods SET tags = CAST(:tags AS jsonb), price = 1.50 WHERE id = 1",
        tags=f"[{large}, {'9' * 400}]",
    )
    [state] = client.get("/goods/1/history").json()["results"]
    assert state["tags"] == [large, int("9" * 400)]
    shown = client.get("/goods/1").text
    assert shown.count('"price":1.50') == 1
    assert set(state) == {*FIELDS, "provider", "valid_from", "valid_to", "change"}


def test_history_hides_changes_of_hidden_columns(client: TestClient, engine: Engine) -> None:
    for price in (1, 2, 3):
        load_goods(engine, [{**GOODS[0], "price": price}])
    load_goods(engine, [GOODS[1]])
    load_goods(engine, [{**GOODS[0], "price": 3}])
    all_of_it = client.get("/goods/1/history").json()["results"]
    assert [state["price"] for state in all_of_it] == [3, 3, 2, 1, 12.5]
    client.headers["Authorization"] = f"Bearer {add_key(engine, 'eve', 'user')}"
    states = client.get("/goods/1/history").json()["results"]
    assert [state["change"] for state in states] == [None, "removed"]
    assert states[1]["valid_from"] == all_of_it[-1]["valid_from"]
    told = list(walk(client, "/goods/1/history?limit=2"))
    assert [len(page["results"]) for page in told] == [2, 1, 1]


def test_long_texts_have_cursors(client: TestClient, engine: Engine) -> None:
    texts = [f"{'ы' * 5000}{n}" for n in range(3)]
    load_goods(engine, [{"id": n, "name": name} for n, name in enumerate(texts)])
    for asked in ("/goods?limit=1&cursor=", "/goods?limit=1&order=name&cursor="):
        pages = list(walk(client, asked))
        found = [each["name"] for page in pages for each in page["results"]]
        assert sorted(found) == texts
        assert len(list(walk(client, pages[-1]["previous"], "previous"))) == 2


def test_cursor_pages_include_rows_with_null_keys(
    engine: Engine, serve: Callable[..., TestClient]
) -> None:
    rows = "(VALUES (1, 1), (1, NULL), (2, 5), (NULL, 1), (NULL, 2)) AS x (a, b)"
    given_own_views(engine, gaps=f"SELECT a, b FROM {rows}")
    client = serve("[resources]\ngaps = { view = 'gaps', key = ['a', 'b'] }")
    whole = client.get("/gaps").json()["results"]
    assert len(whole) == 5
    for limit in (1, 2, 3):
        pages = list(walk(client, f"/gaps?limit={limit}&cursor="))
        assert [each for page in pages for each in page["results"]] == whole
        back = list(walk(client, pages[-1]["previous"], "previous"))
        assert sum(len(page["results"]) for page in back) == limit * (len(pages) - 1)


def test_changed_declaration_changes_the_etag(serve: Callable[..., TestClient]) -> None:
    """A declaration or setting that can change the response changes the ETag."""
    text = "[resources]\ngoods = { view = 'goods', key = 'id', search = ['name'] }"
    others = [
        (text.replace("'id'", "['id', 'name']"), {}),
        (text.replace("search = ['name']", "fields = ['id']"), {}),
        (text.replace(", search = ['name']", ""), {}),
        (text, {"CATLOG_API_PAGE": 2}),
    ]
    tag = {"If-None-Match": serve(text).get("/goods").headers["etag"]}
    assert serve(text).get("/goods", headers=tag).status_code == 304
    for other, settings in others:
        assert serve(other, **settings).get("/goods", headers=tag).status_code == 200


def test_view_with_a_user_defined_function_has_no_etag(
    engine: Engine, serve: Callable[..., TestClient]
) -> None:
    sql(
        engine,
        "CREATE FUNCTION public.rate() RETURNS int STABLE LANGUAGE plpgsql"
        " AS 'BEGIN RETURN 2; END'",
    )
    given_own_views(engine, rated="SELECT id, public.rate() AS rate FROM public.goods")
    client = serve("[resources]\nrated = { view = 'rated', key = 'id' }")
    answer = client.get("/rated")
    assert answer.status_code == 200
    assert "etag" not in answer.headers


def test_error_of_a_failing_view_reveals_no_value(
    client: TestClient, engine: Engine, serve: Callable[..., TestClient]
) -> None:
    """The error is a server error, unless the request has a value."""
    given_own_views(engine, bad="SELECT id, name::int AS n, name FROM public.goods WHERE id = 1")
    client = serve("[resources]\nbad = { view = 'bad', key = 'id', hidden = { name = ['user'] } }")
    for asked, status in {"?limit=3": 500, "?format=csv": 500, "?id=1": 422, "/1": 422}.items():
        answer = client.get(f"/bad{asked}")
        assert answer.status_code == status, answer.text
        assert "Lamp" not in answer.text
        assert "see the server's log" in answer.json()["detail"]


def test_column_type_changed_under_the_server_gives_503(client: TestClient, engine: Engine) -> None:
    given_own_views(engine, cheap=CHEAP.replace("id,", "id::text AS id,"))
    answer = client.get("/cheap-goods?id=3")
    assert answer.status_code == 503
    assert "views have changed" in answer.text


def test_history_without_recorded_fields_has_only_times(serve: Callable[..., TestClient]) -> None:
    client = serve("[resources]\ngoods = { view = 'goods', key = 'id', fields = ['created_at'] }")
    [state] = client.get("/goods/1/history").json()["results"]
    assert set(state) == {"valid_from", "valid_to", "change"}
