"""Responses of the server while PostgreSQL is unreachable, and its recovery."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from catlog_scrapy.api.paths import PREFIX
from catlog_scrapy.db.engine import make_engine
from tests.acceptance.test_access_matrix import Endpoint, endpoints, given_a_summary
from tests.acceptance.test_hostile_requests import head
from tests.support.factories import given_copies
from tests.support.proxy import Proxy
from tests.support.server import Served, Worlds, collected_log
from tests.support.waiting import WAIT_LIMIT_S, until

MANY = 100_000


@pytest.fixture(scope="module")
def proxied(worlds: Worlds) -> Iterator[tuple[Proxy, Served]]:
    with (
        worlds.database() as url,
        Proxy(url) as proxy,
        worlds.serving_at(proxy.url, CATLOG_API_TIMEOUT=3.0) as served,
    ):
        served.tokens("user-user")
        given_a_summary(served.engine)
        yield proxy, served


def asked(served: Served, endpoint: Endpoint) -> tuple[httpx.Response, float]:
    """Send the endpoint's request; return the response and its duration in seconds."""
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {served.world.keys['admin']}"}
    body = endpoint.body
    if endpoint.path.startswith("token"):
        body = {"username": "user-user", "password": "x"}
    answer = httpx.request(
        endpoint.method,
        served.url + endpoint.url,
        json=body,
        headers=headers,
        timeout=WAIT_LIMIT_S,
        trust_env=False,
    )
    return answer, time.monotonic() - began


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_every_endpoint_answers_503_while_the_database_is_away_and_recovers(
    proxied: tuple[Proxy, Served], how: str
) -> None:
    proxy, served = proxied
    found = [
        each
        for each in endpoints(served)
        # These look at the token before they ask the database.
        if each.path not in ("token/refresh", "token/revoke")
    ]
    with collected_log() as log:
        getattr(proxy, how)()
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda each: asked(served, each), found))
        health, _ = asked(served, next(e for e in found if e.path == "healthz"))
        assert health.status_code == 200
        proxy.thaw()
    for endpoint, (answer, seconds) in zip(found, answers, strict=True):
        if endpoint.path == "healthz":
            continue
        said = (endpoint.method, endpoint.url, answer.text, seconds)
        assert answer.status_code == 503, said
        assert int(answer.headers["retry-after"]) > 0, said
        assert answer.headers["content-type"] == "application/problem+json"
        # A frozen connection times out with TCP; see make_engine.
        assert seconds < 120, said
    assert "Traceback" not in "\n".join(log)
    assert any("the database is unavailable" in line for line in log)
    client = served.client(served.world.keys["admin"])
    until(lambda: client.get("/readyz").status_code == 200)
    for endpoint in found:
        if endpoint.method == "GET":
            assert asked(served, endpoint)[0].status_code == 200, endpoint.url


def test_broken_stream_closes_its_connection(proxied: tuple[Proxy, Served]) -> None:
    proxy, served = proxied
    direct = make_engine(proxy.original)
    given_copies(direct, "stations", MANY)
    direct.dispose()
    with collected_log() as log, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(WAIT_LIMIT_S)
        reader.connect(("127.0.0.1", served.port))
        reader.sendall(head(served, f"GET {PREFIX}/guarded-stations?format=ndjson HTTP/1.1"))
        answer = reader.recv(2**16)
        assert b"200 OK" in answer
        assert b"transfer-encoding: chunked" in answer.lower()
        proxy.cut()
        with contextlib.suppress(ConnectionResetError):
            while chunk := reader.recv(2**20):
                answer += chunk
        until(lambda: any("a stream broke" in line for line in log), what=log)
    proxy.thaw()
    assert b"101" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert answer.count(b"\n{") < MANY
    assert "Traceback" not in "\n".join(log)
    client = served.client(served.world.keys["admin"])
    until(lambda: client.get("/readyz").status_code == 200)
    # Connections that have just been used are not looked at: their next request is a 503.
    url = f"{PREFIX}/guarded-stations?format=ndjson&id__lt=1000&order=id"
    until(lambda: client.get(url).status_code == 200)
    lines = client.get(url).text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4]
