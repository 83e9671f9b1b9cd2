"""Loads and schedules over HTTP."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.store.access.keys import add_key
from catlog_scrapy.store.definitions import ProviderDefinition, ScheduleDefinition, SchemeDefinition
from catlog_scrapy.store.queue.schedules.due import make_due
from catlog_scrapy.store.queue.starting import start_waiting
from catlog_scrapy.store.schemes import stored_providers, write_provider
from tests.support.executor import application
from tests.support.factories import (
    an_operation,
    at_once,
    given_a_scheme,
    instances_of,
    one,
    sql,
    state_of,
    the_catalog,
)

JSON = {"Content-Type": "application/json"}
SCHEDULE = {"provider": "acme", "scheme": "goods", "name": "hourly", "cron": "0 * * * *"}


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[TestClient]:
    """Return an internal user's client; the spiders `goods` and `prices` take `colour`."""
    given_a_scheme(engine)
    capabilities = Capabilities("shop", {}, {"goods": ["colour"], "prices": ["colour"]})
    app = application(engine, capabilities=capabilities, CATLOG_HOME=str(tmp_path), CATLOG_POLL=60)
    with TestClient(app, base_url="http://127.0.0.1/api/v1") as made:
        made.headers["Authorization"] = f"Bearer {add_key(engine, 'ops', 'internal')}"
        yield made


def operation_id(engine: Engine, name: str = "goods") -> Any:
    return one(
        engine, "SELECT id FROM catlog.catalog_scheme_operation WHERE name = :name", name=name
    )


def errors_of(answer: Any) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


def audit(engine: Engine) -> list[tuple[str, str, str]]:
    found = sql(engine, "SELECT actor, action, target FROM catlog.audit ORDER BY id")
    return [(row["actor"], row["action"], row["target"]) for row in found]


def test_post_loads_an_operation_by_its_id(client: TestClient, engine: Engine) -> None:
    """The operation is the only operation of its scheme, so the load is full."""
    path = f"/schedule_catalog_scheme_operation/{operation_id(engine)}"
    answer = client.post(path)
    assert answer.status_code == 201
    assert answer.json()["state"] == "waiting"
    made = answer.json()["id"]
    assert client.get(f"http://127.0.0.1{answer.headers['location']}").json()["id"] == made
    catalog = the_catalog(engine, made)
    assert (catalog["is_full"], catalog["operation"], catalog["origin"]) == (True, None, "api")
    assert audit(engine) == [
        ("key:ops", "catalog_scheme_operations:schedule", f"catalog {made}"),
    ]
    start_waiting(engine)
    assert [i["state"] for i in instances_of(engine, made)] == ["new"]
    path = f"http://127.0.0.1{path}/"
    assert client.post(path, json={"arguments": {"colour": "red"}, "priority": 5}).is_success


def test_load_of_one_of_several_operations_is_partial(client: TestClient, engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods"), an_operation("prices"), version=2)
    retired = client.post(f"/schedule_catalog_scheme_operation/{operation_id(engine, 'prices')}")
    assert retired.status_code == 201
    catalog = the_catalog(engine, retired.json()["id"])
    assert (catalog["is_full"], catalog["operation"]) == (False, "prices")
    old = one(
        engine,
        """SELECT o.id FROM catlog.catalog_scheme_operation o
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id WHERE s.version = 1""",
    )
    assert client.post(f"/schedule_catalog_scheme_operation/{old}").status_code == 409
    assert client.post(f"/schedule_catalog_scheme_operation/{uuid4()}").status_code == 404


def test_catalog_is_created_cancelled_and_retried(client: TestClient, engine: Engine) -> None:
    made = client.post("/catalogs", json={"provider": "acme", "scheme": "goods"}).json()["id"]
    assert client.post(f"/catalogs/{made}/retry").status_code == 409
    assert client.post(f"/catalogs/{made}/cancel").json() == {"id": made, "state": "cancelled"}
    assert client.post(f"/catalogs/{made}/cancel").status_code == 409
    assert client.post(f"/catalogs/{made}/retry").json()["state"] == "waiting"
    assert client.post(f"/catalogs/{uuid4()}/retry").status_code == 404
    assert [action for _, action, _ in audit(engine)] == [
        "catalogs:create",
        "catalogs:cancel",
        "catalogs:retry",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "data:text/html,page",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "//other.example",
        "ht\ttp:x",
    ],
)
def test_load_or_schedule_with_a_url_elsewhere_is_refused(
    client: TestClient, engine: Engine, url: str
) -> None:
    hosts = '["cdn.example.com"]'
    sql(engine, f"UPDATE catlog.catalog_scheme_operation SET hosts = '{hosts}' RETURNING id")
    wanted = {"provider": "acme", "scheme": "goods", "arguments": {"colour": url}}
    assert errors_of(client.post("/catalogs", json=wanted)) == ["body.arguments.colour"]
    schedule = {**SCHEDULE, "arguments": {"colour": url}}
    assert errors_of(client.post("/schedules", json=schedule)) == ["body.arguments.colour"]
    path = f"/schedule_catalog_scheme_operation/{operation_id(engine)}"
    answer = client.post(path, json={"arguments": {"colour": url}})
    assert errors_of(answer) == ["body.arguments.colour"]
    made = client.post("/schedules", json=SCHEDULE).json()["id"]
    changed = client.patch(f"/schedules/{made}", json={"arguments": {"colour": url}})
    assert errors_of(changed) == ["body.arguments.colour"]
    allowed = {**wanted, "arguments": {"colour": "https://cdn.example.com/red"}}
    assert client.post("/catalogs", json=allowed).status_code == 201


def test_invalid_load_is_refused(client: TestClient, engine: Engine) -> None:
    wanted = {"provider": "acme", "scheme": "goods"}
    for body, field in (
        ({"provider": "acme"}, "body.scheme"),
        ({**wanted, "colour": "red"}, "body.colour"),
        ({**wanted, "arguments": {"size": "1"}}, "body.arguments"),
        ({**wanted, "arguments": {"colour": 1}}, "body.arguments.colour"),
        ({**wanted, "arguments": {"colour": "\0"}}, "body.arguments.colour"),
        ({**wanted, "arguments": {"base_url": "http://127.0.0.1"}}, "body.arguments.base_url"),
        ({**wanted, "priority": 2**31}, "body.priority"),
        ({**wanted, "provider": "x\0"}, "body.provider"),
    ):
        assert errors_of(client.post("/catalogs", json=body)) == [field]
    assert client.post("/catalogs", json={**wanted, "scheme": "x"}).status_code == 404
    assert client.post("/catalogs", json={**wanted, "operation": "x"}).status_code == 404
    assert client.post("/catalogs", content=b"{", headers=JSON).status_code == 400
    assert one(engine, "SELECT count(*) FROM catlog.catalog") == 0
    assert audit(engine) == []


def test_concurrent_requests_with_one_idempotency_key_create_one_catalog(
    client: TestClient, engine: Engine
) -> None:
    def post() -> Any:
        return client.post(
            "/catalogs",
            json={"provider": "acme", "scheme": "goods"},
            headers={"Idempotency-Key": "one"},
        )

    answers = at_once(*[post] * 8)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert one(engine, "SELECT count(*) FROM catlog.catalog") == 1
    assert len(audit(engine)) == 1


def test_schedule_creates_catalogs_until_it_is_paused(client: TestClient, engine: Engine) -> None:
    answer = client.post("/schedules", json={**SCHEDULE, "arguments": {"colour": "red"}})
    assert answer.status_code == 201
    made = answer.json()["id"]
    assert client.get(f"http://127.0.0.1{answer.headers['location']}").json()["origin"] == "api"
    due = "UPDATE catlog.schedule SET next_due_at = date_trunc('hour', clock_timestamp())"
    sql(engine, due)
    [catalog] = make_due(engine)
    assert the_catalog(engine, catalog)["arguments"] == {"colour": "red"}
    assert client.post(f"/schedules/{made}/pause").status_code == 200
    assert client.get(f"/schedules/{made}").json()["next_due_at"] is None
    assert make_due(engine) == []
    assert client.post(f"/schedules/{made}/pause").status_code == 200
    changed = client.patch(f"/schedules/{made}", json={"cron": "30 * * * *"})
    assert changed.status_code == 200
    assert make_due(engine) == []
    assert client.post(f"/schedules/{made}/resume").status_code == 200
    now = client.get(f"/schedules/{made}").json()
    assert now["paused_at"] is None
    assert dt.datetime.fromisoformat(now["next_due_at"]).minute == 30
    assert state_of(engine, catalog) == "waiting"


def test_next_due_times_of_a_schedule_are_listed(client: TestClient) -> None:
    given = {**SCHEDULE, "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    made = client.post("/schedules", json=given).json()["id"]
    times = client.get(f"/schedules/{made}/due_times").json()["due_times"]
    assert len(times) == 10
    assert times == sorted(set(times))
    assert len(client.get(f"/schedules/{made}/due_times?count=3").json()["due_times"]) == 3
    client.post(f"/schedules/{made}/pause")
    assert client.get(f"/schedules/{made}/due_times").json()["due_times"] == times
    assert client.get(f"/schedules/{uuid4()}/due_times").status_code == 404
    assert errors_of(client.get(f"/schedules/{made}/due_times?count=0")) == ["query.count"]


def test_invalid_schedule_is_refused(client: TestClient, engine: Engine) -> None:
    for change, field in (
        ({"cron": "every day"}, "body.cron"),
        ({"cron": "0 0 30 2 *"}, "body.cron"),
        ({"timezone": "Mars/Olympus"}, "body.timezone"),
        ({"timezone": "../../etc/passwd"}, "body.timezone"),
        ({"arguments": {"size": "1"}}, "body.arguments"),
        ({"arguments": {"colour": "{due_at:x}"}}, "body.arguments.colour"),
        ({"arguments": {"colour": "{secret}"}}, "body.arguments.colour"),
        ({"catch_up": "all"}, "body.catch_up"),
        ({"name": "a/b"}, "body.name"),
    ):
        assert errors_of(client.post("/schedules", json={**SCHEDULE, **change})) == [field]
    assert client.post("/schedules", json={**SCHEDULE, "scheme": "x"}).status_code == 404
    assert client.post("/schedules", json=SCHEDULE).status_code == 201
    assert client.post("/schedules", json=SCHEDULE).status_code == 409
    made = one(engine, "SELECT id FROM catlog.schedule")
    for change, field in (
        ({"cron": "x"}, "body.cron"),
        ({"cron": None}, "body.cron"),
        ({"arguments": {"size": "1"}}, "body.arguments"),
        ({"arguments": {"colour": "{x}"}}, "body.arguments.colour"),
        ({"name": "other"}, "body.name"),
    ):
        assert errors_of(client.patch(f"/schedules/{made}", json=change)) == [field]
    assert client.patch(f"/schedules/{uuid4()}", json={}).status_code == 404


@pytest.mark.parametrize("harmful", ["{due_at.fold:c}", "{due_at.year:>300000000}", "{due_at"])
def test_argument_templates_render_due_times_only(
    client: TestClient, engine: Engine, harmful: str
) -> None:
    arguments = {"arguments": {"colour": harmful}}
    place = {"provider": "acme", "scheme": "goods"}
    for path, body in (
        ("/catalogs", {**place, **arguments}),
        ("/schedules", {**SCHEDULE, **arguments}),
        (f"/schedule_catalog_scheme_operation/{operation_id(engine)}", arguments),
    ):
        assert errors_of(client.post(path, json=body)) == ["body.arguments.colour"]
    # In a load's arguments, other braces are braces.
    plain = {**place, "arguments": {"colour": "{red}"}}
    assert client.post("/catalogs", json=plain).status_code == 201


def test_schedule_refuses_a_secret_as_argument(client: TestClient, engine: Engine) -> None:
    sql(engine, """UPDATE catlog.provider SET secrets = '["colour"]'""")
    secret = {"arguments": {"colour": "x7y"}}
    answer = client.post("/schedules", json={**SCHEDULE, **secret})
    assert (answer.status_code, "x7y" in answer.text) == (409, False)
    made = client.post("/schedules", json=SCHEDULE).json()["id"]
    assert client.patch(f"/schedules/{made}", json=secret).status_code == 409
    sql(engine, """UPDATE catlog.schedule SET arguments = '{"colour": "x7y"}'""")
    assert client.patch(f"/schedules/{made}", json={"enabled": False}).status_code == 200
    assert "x7y" not in str(sql(engine, "SELECT * FROM catlog.audit"))


def test_apply_and_the_api_keep_each_others_schedules(client: TestClient, engine: Engine) -> None:
    """The API only pauses schedules of a file; `scrapy apply` keeps schedules of the API.

    A schedule of the API with the name of a declared schedule becomes the file's.
    """
    with engine.connect() as connection:
        [stored] = stored_providers(connection)
    nightly = ScheduleDefinition("goods", "nightly", "0 3 * * *")
    apply(engine, stored, (nightly,))
    filed = one(engine, "SELECT id FROM catlog.schedule")
    assert client.patch(f"/schedules/{filed}", json={"cron": "0 4 * * *"}).status_code == 409
    assert client.post(f"/schedules/{filed}/pause").status_code == 200
    made = client.post("/schedules", json=SCHEDULE).json()["id"]
    apply(engine, stored, (ScheduleDefinition("goods", "nightly", "0 5 * * *"),))
    paused = client.get(f"/schedules/{filed}").json()
    assert (paused["cron"], paused["next_due_at"]) == ("0 5 * * *", None)
    assert paused["paused_at"]
    kept = client.get(f"/schedules/{made}").json()
    assert (kept["enabled"], kept["origin"]) == (True, "api")
    apply(engine, stored, (ScheduleDefinition("goods", "hourly", "15 * * * *"),))
    taken = client.get(f"/schedules/{made}").json()
    assert (taken["cron"], taken["origin"]) == ("15 * * * *", "file")
    assert client.get(f"/schedules/{filed}").json()["enabled"] is False


def test_schedule_removed_from_its_file_can_be_created_by_the_api(
    client: TestClient, engine: Engine
) -> None:
    with engine.connect() as connection:
        [stored] = stored_providers(connection)
    hourly = ScheduleDefinition("goods", "hourly", "15 * * * *")
    off = ScheduleDefinition("goods", "off", "15 * * * *", enabled=False)
    apply(engine, stored, (hourly, off))
    filed = one(engine, "SELECT id FROM catlog.schedule WHERE name = 'hourly'")
    assert client.post("/schedules", json=SCHEDULE).status_code == 409
    assert client.post("/schedules", json={**SCHEDULE, "name": "off"}).status_code == 409
    apply(engine, stored, (off,))
    answer = client.post("/schedules", json=SCHEDULE)
    assert (answer.status_code, answer.json()["id"]) == (201, str(filed))
    now = client.get(f"/schedules/{filed}").json()
    assert (now["cron"], now["origin"], now["enabled"]) == (SCHEDULE["cron"], "api", True)
    assert now["next_due_at"]
    assert client.post("/schedules", json=SCHEDULE).status_code == 409
    assert client.patch(f"/schedules/{filed}", json={"cron": "5 * * * *"}).status_code == 200
    # A schedule that the file declares again belongs to the file again.
    apply(engine, stored, (hourly,))
    assert client.get(f"/schedules/{filed}").json()["origin"] == "file"


def apply(
    engine: Engine, provider: ProviderDefinition, schedules: tuple[ScheduleDefinition, ...]
) -> None:
    """Store the provider as `scrapy apply` does, with these schedules."""
    schemes: tuple[SchemeDefinition, ...] = provider.schemes
    declared = ProviderDefinition(provider.name, schemes=schemes, schedules=schedules)
    with engine.begin() as connection:
        write_provider(connection, declared)
