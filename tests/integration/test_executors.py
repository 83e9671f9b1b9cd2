"""External executors over real HTTP: each record is stored exactly once."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.records.hashing import content_hash, record_id
from catlog_scrapy.store.access.keys import add_key, revoke_key
from catlog_scrapy.store.queue import catalogs, executors, external_batches, leases
from catlog_scrapy.store.queue.attempts import AttemptName
from tests.support.executor import Answer, Client, application, serving
from tests.support.factories import (
    an_operation,
    at_once,
    current,
    given_a_provider,
    given_a_scheme,
    given_a_waiting_catalog,
    given_fields,
    instances_of,
    one,
    sql,
    state_of,
    the_catalog,
)
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.waiting import WAIT_LIMIT_S, WAITING_BACKENDS, until

CLAIM = {"operations": ["acme/goods"], "worker": "one"}
STORED = "SELECT count(*) FROM catlog.catalog_operation_instance_result"
MIB = 2**20


@pytest.fixture
def robot(engine: Engine) -> Iterator[Client]:
    with serving(application(engine)) as port:
        yield Client(port, a_key(engine))


@pytest.fixture
def hasty(engine: Engine) -> Iterator[Client]:
    """Yield an executor's client of a server with short leases."""
    with serving(application(engine, CATLOG_LEASE=2.0)) as port:
        yield Client(port, a_key(engine, "hasty"))


def a_key(engine: Engine, name: str = "robot", **given: Any) -> str:
    return add_key(engine, name, "service", **given)


def given_goods(engine: Engine, **columns: Any) -> Any:
    """Insert a waiting catalog of the external operation."""
    given_a_scheme(engine, an_operation(executor="external", **columns))
    return given_a_waiting_catalog(engine)


def goods(*ids: object) -> list[dict[str, object]]:
    return [{"id": f"{id_}", "value": id_} for id_ in ids]


def is_loaded(engine: Engine, catalog: Any) -> None:
    until(lambda: state_of(engine, catalog) == "loaded", what=lambda: the_catalog(engine, catalog))


def refused(answer: Answer, word: str) -> None:
    assert answer.status == 409, answer
    assert word in answer.text


def test_server_without_workers_loads_an_external_catalog(engine: Engine, robot: Client) -> None:
    catalog = given_goods(engine, arguments={"year": "2026"}, timeout=90.0)
    [claimed] = robot.claim(wait=20)
    attempt = claimed["attempt"]
    assert claimed["catalog"] == str(catalog)
    assert claimed["arguments"] == {"year": "2026"}
    assert (claimed["mode"], claimed["cursor"], claimed["lease"]) == ("snapshot", None, 60.0)
    assert claimed["kinds"] == [
        {
            "name": "goods",
            "key": ["id"],
            "fields": [
                {"name": "id", "type": "text"},
                {"name": "value", "type": "jsonb"},
            ],
        }
    ]
    assert claimed["expires_at"] < claimed["deadline_at"]
    assert robot.ask(f"{attempt}/heartbeat").body["reply"] == "go"
    assert robot.send(attempt, 1, *goods(1, 2)).body == {
        "batch": 1,
        "accepted": 2,
        "rejected": 0,
        "rejections": [],
    }
    lines = "".join(json.dumps(each) + "\n" for each in goods(3, "a\\b\tc\nd"))
    path = f"{attempt}/results?batch=2"
    media = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    assert robot.ask(path, f"\n{lines}".encode(), media).body["accepted"] == 2
    assert one(engine, "SELECT node FROM catlog.instance_attempt") == "key:robot/one"
    for _ in range(2):
        assert robot.complete(attempt, 2).body == {"outcome": "done", "error": None}
    is_loaded(engine, catalog)
    assert current(engine) == {"1": 1, "2": 2, "3": 3, "a\\b\tc\nd": "a\\b\tc\nd"}
    verbs = sql(engine, "SELECT actor, detail ->> 'verb' AS verb FROM catlog.audit ORDER BY id")
    assert [row["verb"] for row in verbs] == [
        "claim",
        "results",
        "results",
        "complete",
        "complete",
    ]
    assert {row["actor"] for row in verbs} == {"key:robot"}


def test_executor_with_an_expired_lease_is_fenced_off(
    engine: Engine, hasty: Client, robot: Client
) -> None:
    catalog = given_goods(engine)
    late = hasty.claim_one()
    assert hasty.send(late, 1, *goods(666)).status == 200
    attempt = robot.claim_one()
    assert attempt == late[:-1] + "2"
    assert hasty.ask(f"{late}/heartbeat").body == {"reply": "lost", "expires_at": None}
    refused(hasty.send(late, 2, *goods(667)), "lost")
    refused(hasty.send(late, 1, *goods(666)), "lost")
    refused(hasty.complete(late, 1), "lost")
    refused(hasty.ask(f"{late}/fail", {"error": "mine"}), "lost")
    refused(hasty.ask(f"{late}/release"), "lost")
    assert robot.send(attempt, 1, *goods(1)).status == 200
    assert robot.complete(attempt, 1).body["outcome"] == "done"
    is_loaded(engine, catalog)
    assert current(engine) == {"1": 1}


def test_heartbeats_keep_the_attempt(engine: Engine, hasty: Client) -> None:
    given_goods(engine)
    attempt = hasty.claim_one()
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        assert hasty.ask(f"{attempt}/heartbeat").body["reply"] == "go"
        time.sleep(0.1)
    assert hasty.complete(attempt, 0).body["outcome"] == "done"


def test_attempt_of_another_owner_is_not_found(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    other = a_key(engine, "other"), 404
    reader = a_key(engine, "reader", scopes=["catalogs:read"]), 403
    for key, status in (other, reader, ("nonsense", 401)):
        stranger = Client(robot.port, key)
        for answer in (
            stranger.ask(f"{attempt}/heartbeat"),
            stranger.send(attempt, 1),
            stranger.complete(attempt, 0),
            stranger.ask(f"{attempt}/fail", {"error": "x"}),
            stranger.ask(f"{attempt}/release"),
        ):
            assert answer.status == status, answer
    for path in ("7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0.1", attempt[:-1] + "99"):
        assert robot.ask(f"{path}/heartbeat").status == 404
    assert robot.ask("nonsense/heartbeat").status == 422
    assert robot.ask(f"{attempt}9999999999/heartbeat").status == 422
    assert robot.ask(f"{attempt}/results?batch=0").status == 422
    assert robot.ask(f"{attempt}/results?batch=99999999999999").status == 422


def test_attempt_deleted_during_a_request_is_not_found(
    engine: Engine, robot: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_goods(engine)
    attempt = robot.claim_one()

    def delete(connection: Connection, name: AttemptName, _: str) -> None:
        query = "DELETE FROM catlog.instance_attempt WHERE instance_id = :id"
        connection.execute(text(query), {"id": name.instance})

    def heartbeat(_: Any, names: Sequence[AttemptName], **__: float) -> dict[AttemptName, str]:
        return dict.fromkeys(names, "go")

    monkeypatch.setattr(executors, "require_owner", delete)
    monkeypatch.setattr(external_batches, "require_owner", delete)
    monkeypatch.setattr(leases, "heartbeat", heartbeat)
    for answer in (
        robot.ask(f"{attempt}/heartbeat"),
        robot.send(attempt, 1),
        robot.complete(attempt, 0),
    ):
        assert answer.status == 404, answer


def test_batches_come_in_order_and_count_once(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    refused(robot.send(attempt, 2, *goods(2)), "send that")
    first = robot.send(attempt, 1, *goods(1), {"no": "id"})
    assert first.body["rejections"] == [
        {"of": "records", "index": 1, "errors": ["id: Field required"]}
    ]
    assert robot.send(attempt, 1, *goods(1), {"no": "id"}) == first
    refused(robot.send(attempt, 1, *goods(3)), "another body")
    refused(robot.complete(attempt, 2), "Batch 2 of")
    assert robot.send(attempt, 2, *goods(2)).status == 200
    refused(robot.complete(attempt, 1), "has 2 batches, not 1")
    rows = sql(engine, "SELECT seq, key FROM catlog.catalog_operation_instance_result ORDER BY 1")
    assert rows == [{"seq": 0, "key": "1"}, {"seq": 1, "key": "2"}]
    assert one(engine, "SELECT count(*) FROM catlog.rejected_result") == 1


def test_server_hashes_the_rows_of_an_executor(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    assert robot.send(attempt, 1, {"id": "a", "tags": [1]}).status == 200
    [row] = sql(
        engine,
        """SELECT key_hash, content_hash, data::text AS data
           FROM catlog.catalog_operation_instance_result""",
    )
    provider = one(engine, "SELECT id FROM catlog.provider")
    assert row["key_hash"] == record_id(provider, "a")
    assert row["content_hash"] == UUID(bytes=content_hash(row["data"].encode()))


def test_concurrent_repetitions_of_a_batch_are_stored_once(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    for number in (1, 2):
        answers = at_once(*[partial(robot.send, attempt, number, *goods(*range(500)))] * 6)
        assert {answer.text for answer in answers} == {answers[0].text}
        assert answers[0].status == 200
        assert one(engine, STORED) == 500 * number
    ends = at_once(*[partial(robot.complete, attempt, 2)] * 4)
    assert [end.body["outcome"] for end in ends] == ["done"] * 4


def test_cancelled_catalog_refuses_results(engine: Engine, robot: Client) -> None:
    catalog = given_goods(engine)
    attempt = robot.claim_one()
    assert robot.send(attempt, 1, *goods(1)).status == 200
    catalogs.cancel(engine, catalog)
    assert robot.ask(f"{attempt}/heartbeat").body == {"reply": "cancel", "expires_at": None}
    refused(robot.send(attempt, 2, *goods(2)), "is cancelled")
    for _ in range(2):
        ended = robot.ask(f"{attempt}/release")
        assert ended.body == {"outcome": "cancelled", "error": "cancelled by request"}
    assert [instance["node"] for instance in instances_of(engine, catalog)] == [None]


def test_attempt_past_its_deadline_refuses_results(engine: Engine, robot: Client) -> None:
    catalog = given_goods(engine, timeout=0.3)
    attempt = robot.claim_one()
    until(lambda: robot.ask(f"{attempt}/heartbeat").body["reply"] == "timed_out")
    refused(robot.send(attempt, 1, *goods(1)), "past its deadline")
    assert robot.complete(attempt, 0).body["outcome"] == "timed_out"
    assert the_catalog(engine, catalog)["errors"] == 1


def test_attempt_is_done_only_if_complete(engine: Engine, robot: Client) -> None:
    given_goods(engine, min_results=2, tolerate={"rejected": 1}, backoff_cap=0.0)
    short = robot.claim_one()
    robot.send(short, 1, *goods(1))
    ended = robot.complete(short, 1).body
    assert ended["outcome"] == "incomplete"
    assert "1 result, at least 2 expected" in ended["error"]
    assert robot.complete(short, 1).body == ended
    spoilt = robot.claim_one()
    robot.send(spoilt, 1, *goods(1, 2), {"id": None}, {"id": ""})
    ended = robot.complete(spoilt, 1).body
    assert ended["outcome"] == "incomplete"
    assert "2 items rejected, tolerated 1; the first: id:" in ended["error"]
    failed = robot.claim_one()
    given = {"error": "the shop\0 is \ud800 closed", "retry_after": 0.0}
    assert robot.ask(f"{failed}/fail", given).status == 422
    assert robot.ask(f"{failed}/fail", {"error": "closed"}).body["outcome"] == "failed"
    released = robot.claim_one()
    assert robot.ask(f"{released}/release").body["outcome"] == "released"
    good = robot.claim_one()
    robot.send(good, 1, *goods(1, 2), {"id": None})
    assert robot.complete(good, 1).body == {"outcome": "done", "error": None}
    refused(robot.ask(f"{good}/fail", {"error": "late"}), "has ended: done")


NO_BATCHES = [
    (b"", "line 1"),
    (b"{", "line 1"),
    (b'{"records": [\n{"id": 1},\n{"id": }]}', "line 3"),
    (b"[]", "is not an object"),
    (b'{"records": {}}', "body.records"),
    (b'{"record": []}', "unknown member"),
    (b'{"records": [{"id": 1, "x": NaN}]}', "NaN is not valid JSON"),
    (b'{"records": [{"id": 1, "id": 2}]}', "the member 'id' twice"),
    (b'{"records": [{"id": ' + b"9" * 5000 + b"}]}", "1000 digits"),
    (b'{"records": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
    (b'{"records": [{"id": "\xff"}]}', "invalid UTF-8"),
    (b'{"records": [{"id": 1e999}]}', "out of range"),
    (b'{"records": [' + b",".join([b"1"] * 100_001) + b"]}", "more than 100000 items"),
]


def test_unreadable_batch_is_refused_completely(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    for body, word in NO_BATCHES:
        answer = robot.send_raw(attempt, body)
        assert answer.status == 422, answer
        assert word in answer.text
    assert one(engine, STORED) == 0


def test_error_names_the_invalid_line(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    body = b'{"id": 1}\n\n{"id": 2}\n{"id": 3\n'
    answer = robot.send_raw(attempt, body, "application/x-ndjson")
    assert answer.status == 422
    assert "line 4" in answer.text
    assert one(engine, STORED) == 0


def test_record_that_cannot_be_stored_is_rejected(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    deep = "[" * 500 + "]" * 500
    records = [
        '{"id": "a\\u0000b"}',
        '{"id": "1", "\\ud800": "\\u0000"}',
        '{"id": "\\udfff"}',
        f'{{"id": "3", "x": {deep}}}',
        '{"id": {}}',
        f'{{"id": "{"x" * 2000}"}}',
        '["id"]',
        "null",
        '{"id": "fine", "x": 123456789012345678901234567890}',
    ]
    answer = robot.send_raw(attempt, f'{{"records": [{",".join(records)}]}}'.encode())
    assert answer.status == 200, answer
    assert (answer.body["accepted"], answer.body["rejected"]) == (1, 8)
    assert [told["index"] for told in answer.body["rejections"]] == list(range(8))
    kept = one(engine, "SELECT data ->> 'x' FROM catlog.catalog_operation_instance_result")
    assert kept == "123456789012345678901234567890"


def test_stored_and_reported_rejections_are_limited(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    answer = robot.send(attempt, 1, *[{}] * 1500)
    assert (answer.body["rejected"], len(answer.body["rejections"])) == (1500, 100)
    assert robot.send(attempt, 2, *[{}] * 10).body["rejected"] == 10
    assert one(engine, "SELECT count(*) FROM catlog.rejected_result") == 1000


def test_too_large_batch_is_refused_unread(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    head = (
        f"POST /api/v1/attempts/{attempt}/results?batch=1 HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {robot.key}\r\nContent-Type: application/json\r\n"
    )
    said = robot.raw(f"{head}Content-Length: {17 * MIB}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413 ")
    # Without a length it is counted.
    chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
    with socket.create_connection(("127.0.0.1", robot.port), 30) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        with pytest.raises(ConnectionError):  # at the latest when nobody reads any more
            for _ in range(64):
                connection.sendall(chunk)
    assert one(engine, STORED) == 0
    just = json.dumps({"records": goods(1)}).encode()
    assert robot.send_raw(attempt, just.ljust(16 * MIB)).status == 200


def test_unsupported_media_type_of_results_is_refused(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    for media in ("text/csv", "", "application/json; charset=latin-1"):
        assert robot.send_raw(attempt, b'{"records": []}', media).status == 415
    path, zipped = f"{attempt}/results?batch=1", {"Content-Encoding": "gzip"}
    assert robot.ask(path, b"", zipped).status == 415


def test_claim_is_limited_to_the_named_operations(engine: Engine, robot: Client) -> None:
    given_a_provider(engine, max_running=2)
    words = ["a", "b", "c"]
    given_a_scheme(
        engine,
        an_operation("goods", executor="external", for_each=words),
        an_operation("prices", executor="external"),
        an_operation("ours"),
    )
    given_a_waiting_catalog(engine)
    robot.operations = ["acme/goods/goods"]
    taken = robot.claim(wait=20, limit=100)
    assert [(each["operation"], each["part"]) for each in taken] == [("goods", "a"), ("goods", "b")]
    assert robot.claim() == []  # max_running
    for each in taken:
        robot.complete(each["attempt"], 0)
    assert [each["part"] for each in robot.claim()] == ["c"]
    assert robot.claim() == []
    robot.operations = ["acme/goods"]
    assert [each["operation"] for each in robot.claim()] == ["prices"]
    for name, word in (
        ("acme/goods/ours", "run by spiders"),
        ("acme/x", "not a declared operation"),
    ):
        wanted = {"operations": ["acme/goods", name], "worker": "one"}
        answer = robot.ask("claim", wanted)
        assert (answer.status, answer.body["errors"][0]["field"]) == (422, "body.operations.1")
        assert word in answer.text
    for wrong in ({"worker": "a/b"}, {"limit": 0}, {"limit": 101}, {"wait": 31}, {"wait": "x"}):
        wanted = {"operations": ["acme/goods"], "worker": "one", **wrong}
        assert robot.ask("claim", wanted).status == 422


def test_claim_waits_for_work(engine: Engine, robot: Client) -> None:
    given_a_scheme(engine, an_operation(executor="external"))
    started = time.monotonic()
    assert robot.claim(wait=0.3) == []
    assert time.monotonic() - started >= 0.3
    claims: list[Any] = []
    waiting = threading.Thread(target=lambda: claims.extend(robot.claim(wait=30)))
    waiting.start()
    time.sleep(0.3)
    given_a_waiting_catalog(engine)
    waiting.join(WAIT_LIMIT_S)
    assert len(claims) == 1


def test_claim_of_a_disconnected_client_is_released(engine: Engine, robot: Client) -> None:
    given_a_scheme(engine, an_operation(executor="external"))
    body = json.dumps({"operations": ["acme/goods"], "worker": "gone", "wait": 30})
    with socket.create_connection(("127.0.0.1", robot.port)) as connection:
        connection.sendall(
            "POST /api/v1/attempts/claim HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {robot.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        time.sleep(0.2)
    time.sleep(0.3)
    given_a_waiting_catalog(engine)
    assert len(robot.claim(wait=20)) == 1
    assert one(engine, "SELECT count(*) FROM catlog.instance_attempt") == 1


def test_claim_repeated_with_its_idempotency_key_returns_the_claim(
    engine: Engine, robot: Client
) -> None:
    given_goods(engine, for_each=["a", "b"])
    wanted = {"operations": ["acme/goods"], "worker": "one", "wait": 20}
    first = robot.ask("claim", wanted, {"Idempotency-Key": "1"})
    assert robot.ask("claim", wanted, {"Idempotency-Key": "1"}) == first
    assert [each["part"] for each in first.body["attempts"]] == ["a"]
    assert [each["part"] for each in robot.claim()] == ["b"]
    # An empty reply is not stored under the idempotency key.
    again = {"Idempotency-Key": "2"}
    assert robot.ask("claim", {**wanted, "wait": 0}, again).body == {"attempts": []}
    robot.ask(f"{first.body['attempts'][0]['attempt']}/release")
    assert len(robot.ask("claim", {**wanted, "wait": 0}, again).body["attempts"]) == 1


def test_server_can_be_restarted(engine: Engine) -> None:
    catalog, key = given_goods(engine), a_key(engine)
    app = application(engine)
    with serving(app):
        until(lambda: state_of(engine, catalog) == "loading")
    with serving(app) as port:
        robot = Client(port, key)
        assert robot.complete(robot.claim_one(), 0).status == 200
        is_loaded(engine, catalog)


def test_openapi_document_has_both_formats_of_a_batch(engine: Engine) -> None:
    paths = application(engine).openapi()["paths"]
    results = paths["/api/v1/attempts/{attempt}/results"]["post"]
    assert set(results["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    assert {"200", "404", "409", "413", "415", "422"} <= set(results["responses"])
    for verb in ("claim", "{attempt}/complete", "{attempt}/fail", "{attempt}/release"):
        answer = paths[f"/api/v1/attempts/{verb}"]["post"]["responses"]["200"]["content"]
        assert answer["application/json"]["schema"]["$ref"].endswith(
            ("/ClaimReply", "/AttemptOutcome")
        )


def test_incremental_operation_continues_from_its_cursor(engine: Engine, robot: Client) -> None:
    catalog = given_goods(engine, mode="incremental", min_results=1, overlap=60.0)
    attempt = robot.claim_one()
    robot.send(attempt, 1, *goods(1, 2, 3))
    for cursor in ("yesterday", "\u0000", ""):
        answer = robot.complete(attempt, 1, cursor=cursor)
        assert answer.status == 422
        assert "body" in answer.text
    assert robot.complete(attempt, 1, cursor="2026-01-01T10:00:00Z").body["outcome"] == "done"
    is_loaded(engine, catalog)
    later = given_a_waiting_catalog(engine)
    [claimed] = robot.claim(wait=20)
    assert claimed["cursor"] == "2026-01-01T09:59:00Z"
    attempt = claimed["attempt"]
    answer = robot.send(attempt, 1, {"id": "2", "value": 7}, unchanged=["1"], removed=["3", None])
    assert (answer.body["accepted"], answer.body["rejected"]) == (3, 1)
    assert answer.body["rejections"][0]["of"] == "removed"
    assert robot.complete(attempt, 1).body["outcome"] == "incomplete"
    [claimed] = robot.claim(wait=20)
    robot.send(claimed["attempt"], 1, {"id": "2", "value": 7}, unchanged=["1"], removed=["3"])
    assert robot.complete(claimed["attempt"], 1, cursor="2026-01-02T10:00:00Z").status == 200
    is_loaded(engine, later)
    assert current(engine) == {"1": 1, "2": 7}
    sql(engine, "UPDATE catlog.cursor SET value = 'yesterday'")
    given_a_waiting_catalog(engine)
    assert robot.claim(wait=20) == []
    query = "SELECT error FROM catlog.instance_attempt WHERE outcome = 'failed'"
    assert "not an ISO 8601 datetime" in until(lambda: sql(engine, query))[0]["error"]


def test_snapshot_refuses_a_cursor(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    attempt = robot.claim_one()
    answer = robot.complete(attempt, 0, cursor="x")
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "body.cursor")
    assert robot.complete(attempt, 0).body["outcome"] == "done"


def test_batch_interrupted_by_a_database_outage_is_stored_once(
    engine: Engine, database_url: str
) -> None:
    given_goods(engine)
    key = a_key(engine)
    with Proxy(database_url) as proxy:
        far = make_engine(proxy.url)
        with serving(application(far)) as port:
            robot = Client(port, key)
            attempt = robot.claim_one()
            with engine.connect() as blocking:
                blocking.execute(
                    text("LOCK TABLE catlog.catalog_operation_instance_result IN SHARE MODE")
                )
                answers = at_once(
                    lambda: robot.send(attempt, 1, *goods(1, 2)),
                    lambda: cut_in_mid_copy(engine, proxy),
                )
                blocking.rollback()
            assert answers[0].status == 503, answers
            assert robot.ask(f"{attempt}/heartbeat").status == 503
            proxy.thaw()
            assert robot.send(attempt, 1, *goods(1, 2)).status == 200
            assert robot.complete(attempt, 1).body["outcome"] == "done"
        far.dispose()
    assert one(engine, STORED) == 2


def cut_in_mid_copy(engine: Engine, proxy: Proxy) -> Answer:
    until(lambda: sql(engine, WAITING_BACKENDS))
    proxy.cut()
    return Answer(0, None)


PARTS = [f"{number:02}" for number in range(20)]


def test_unreliable_executors_load_each_record_once(engine: Engine) -> None:
    given_a_scheme(
        engine,
        an_operation(executor="external", for_each=PARTS, arguments={"part": "{part}"}),
        max_errors=1000,
    )
    catalog, key = given_a_waiting_catalog(engine), a_key(engine)
    with serving(application(engine, CATLOG_LEASE=3.0)) as port:
        workers = [
            Worker(Client(port, key, worker=f"w{seed}"), seed, lambda: state_of(engine, catalog))
            for seed in range(5)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(540)
        is_loaded(engine, catalog)
    assert [worker.error for worker in workers] == [None] * 5
    # Both were there: attempts that vanished, and batches that came twice.
    assert sql(engine, "SELECT 1 FROM catlog.instance_attempt WHERE outcome = 'lost'")
    assert sum(worker.stammered for worker in workers) > 5
    expected = {f"{part}-{number}": number for part in PARTS for number in range(30)}
    assert current(engine) == expected
    assert the_catalog(engine, catalog)["published"]["created"] == len(expected)
    done = """SELECT count(*), count(DISTINCT r.key) AS keys
              FROM catlog.catalog_operation_instance_result r
              JOIN catlog.instance_attempt a ON a.instance_id = r.instance_id
                  AND a.attempt = r.attempt AND a.outcome = 'done'"""
    assert sql(engine, done) == [{"count": 600, "keys": 600}]


class Worker(threading.Thread):
    """Executor that sometimes exceeds its lease and continues to send."""

    def __init__(self, client: Client, seed: int, state: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.chance = random.Random(seed)
        self.state = state
        self.stammered = 0
        self.deaths = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while self.state() in ("waiting", "loading"):
                for claimed in self.client.claim(wait=0.3):
                    self.load(claimed["attempt"], claimed["part"])
        except Exception as error:
            self.error = error

    def load(self, attempt: str, part: str) -> None:
        # Lost three times in a row it would fail, as it should.
        may_die = self.deaths < 2 and int(attempt.rpartition(".")[2]) < 3
        dies_before = self.chance.randrange(1, 12) if may_die else 0
        for number in (1, 2, 3):
            if number == dies_before:
                self.deaths += 1
                if self.chance.random() < 0.5:
                    return  # for good
                time.sleep(4.5)  # or so it seemed
            first = (number - 1) * 10
            records = [
                {"id": f"{part}-{index}", "value": index} for index in range(first, first + 10)
            ]
            works = [partial(self.client.send, attempt, number, *records)] * self.chance.choice(
                [1, 1, 2, 3]
            )
            self.stammered += len(works) - 1
            answers = at_once(*works)
            accepted = [answer for answer in answers if answer.status == 200]
            assert all(answer.body["accepted"] == 10 for answer in accepted), answers
            # On a slow machine the lease may expire between two copies of a batch.
            if len(accepted) < len(answers):
                assert {answer.status for answer in answers} <= {200, 409}, answers
                return
        self.client.complete(attempt, 3)


DECLARED = """
    [provider]
    name = "acme"
    [[scheme]]
    name = "goods"
    [[scheme.operation]]
    name = "goods"
    executor = "external"
    kind = "goods"
    key = "id"
    fields = { id = "bigint", price = "numeric" }
    """


def test_load_command_names_the_executors_it_waits_for(
    engine: Engine, database_url: str, robot: Client, tmp_path: Path
) -> None:
    project = Project(tmp_path, database_url)
    project.write("shop/providers/acme.toml", DECLARED)
    project.scrapy("apply")
    load = project.start("load", "acme/goods")
    waits = "acme/goods/goods: waits for an external executor"
    until(lambda: waits in load.written()[0])
    [claimed] = robot.claim(wait=20)
    assert claimed["kinds"][0]["fields"] == [
        {"name": "id", "type": "bigint"},
        {"name": "price", "type": "numeric"},
    ]
    attempt = claimed["attempt"]
    records = [{"id": "1", "price": "1.10", "more": True}, {"id": "x"}]
    answer = robot.send(attempt, 1, *records).body
    assert (answer["accepted"], answer["rejections"][0]["index"]) == (1, 1)
    assert robot.complete(attempt, 1).body["outcome"] == "incomplete"
    until(
        lambda: sql(
            engine,
            "UPDATE catlog.catalog_scheme_operation_instance"
            " SET available_at = now() WHERE state = 'new' RETURNING id",
        )
    )
    attempt = robot.claim_one()
    robot.send(attempt, 1, records[0])
    assert robot.complete(attempt, 1).body["outcome"] == "done"
    out, _ = load.communicate()
    assert load.returncode == 0
    assert out.count("waits for") == 1
    assert sql(engine, "SELECT id, price::text, data -> 'more' AS more FROM goods") == [
        {"id": 1, "price": "1.10", "more": True}
    ]


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "executor.py"


def test_executor_page_links_and_runs_the_example() -> None:
    page = EXAMPLE.parents[1].joinpath("howto", "executor.md").read_text(encoding="utf-8")
    assert f"(../examples/{EXAMPLE.name})" in page
    assert f"python docs/examples/{EXAMPLE.name} &" in page


def test_documented_example_executor_loads_a_catalog(engine: Engine, robot: Client) -> None:
    given_a_scheme(engine, an_operation(executor="external", arguments={"pages": "3"}))
    given_fields(engine, {"id": "text", "title": "text"})
    environment = {
        **os.environ,
        "CATLOG_API": f"http://127.0.0.1:{robot.port}/api/v1",
        "CATLOG_KEY": robot.key,
    }
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE)], env=environment, stdout=subprocess.PIPE, text=True
    ) as executor:
        catalog = given_a_waiting_catalog(engine)
        is_loaded(engine, catalog)
        executor.terminate()
        executor.communicate()
    found = sql(engine, "SELECT key, data ->> 'title' AS title FROM catlog.records() ORDER BY key")
    assert len(found) == 9
    assert found[0] == {"key": "0-0", "title": "Lamp 0"}


def test_stopping_server_ends_waiting_claims(engine: Engine) -> None:
    """A client that waits for a claim gets an empty reply, and can ask another server."""
    given_a_scheme(engine, an_operation(executor="external"))
    key = a_key(engine)
    with ThreadPoolExecutor(1) as elsewhere:
        with serving(application(engine)) as port:
            client = Client(port, key)
            waiting = elsewhere.submit(client.claim, wait=30)
            time.sleep(1)
            assert not waiting.done()
        began = time.monotonic()
        assert waiting.result(WAIT_LIMIT_S) == []
    assert time.monotonic() - began < 25


def test_key_revoked_during_a_claim_gets_no_attempts(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(executor="external"))
    with serving(application(engine)) as port, ThreadPoolExecutor(1) as elsewhere:
        client = Client(port, a_key(engine))
        waiting = elsewhere.submit(client.ask, "claim", {**CLAIM, "wait": 30})
        time.sleep(0.5)
        revoke_key(engine, "robot")
        catalog = given_a_waiting_catalog(engine)
        assert waiting.result(WAIT_LIMIT_S).status == 401
        until(lambda: instances_of(engine, catalog) != [])
        assert [i["state"] for i in instances_of(engine, catalog)] == ["new"]


def test_one_client_cannot_occupy_all_threads(engine: Engine) -> None:
    """A client with slow requests waits for them; other clients do not."""
    app = application(engine)

    @app.get("/slow")
    def slow() -> None:
        time.sleep(1)

    with serving(app) as port, ThreadPoolExecutor(80) as elsewhere:

        def seconds(path: str, key: str) -> float:
            began = time.monotonic()
            connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_LIMIT_S)
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
            assert connection.getresponse().status in (200, 401)
            connection.close()
            return time.monotonic() - began

        greedy = [elsewhere.submit(seconds, "/slow", "greedy") for _ in range(64)]
        time.sleep(0.5)
        seconds("/api/v1/providers", "other")
        assert not all(each.done() for each in greedy)
        assert max(each.result() for each in greedy) > 3
