"""Hostile requests: no server errors, no foreign rows, no held connections."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import text

from catlog_scrapy.api.paths import PREFIX
from tests.acceptance.test_access_matrix import BODIES, endpoints, given_a_summary, path_values
from tests.support.factories import given_copies
from tests.support.server import PASSWORD, Served, Worlds, collected_log
from tests.support.waiting import THIS_DATABASE, WAIT_LIMIT_S, until

# As they stand in a URL.
INJECTED = ("'%20OR%201=1%20--", '"%3B%20DROP%20TABLE%20records.stations--', "%25")
NUMBERS = ("9" * 400, str(2**63), "1e999", "-0")
BROKEN = ("%00", "%ED%A0%80", "x" * 10_000, quote("[" * 1000))
MANY = 20_000


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    with collected_log() as said:
        yield said


@pytest.fixture(scope="module")
def served(worlds: Worlds, log: list[str]) -> Iterator[Served]:
    with worlds.serving(CATLOG_API_TIMEOUT=3.0, CATLOG_API_BODY=2**20) as served:
        given_a_summary(served.engine)
        yield served


class Asking:
    """Connection that sends paths unchanged, without URL encoding."""

    def __init__(self, served: Served, credentials: str) -> None:
        self.connection = HTTPConnection("127.0.0.1", served.port, timeout=WAIT_LIMIT_S)
        self.headers = {"Authorization": f"Bearer {credentials}"}

    def __call__(
        self, url: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        try:
            self.connection.request(method, url, body, {**self.headers, **headers})
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except ConnectionError:  # an invalid HTTP head: the connection is closed
            self.connection.close()
            return 400, b'{"status": 400}'


@pytest.fixture
def ask(served: Served) -> Iterator[Asking]:
    asking = Asking(served, served.world.keys["admin"])
    yield asking
    asking.connection.close()


def test_hostile_parameters_cause_no_server_error(served: Served, ask: Asking) -> None:
    document = served.client().get("/openapi.json").json()
    values = path_values(served)
    asked, wrong = 0, []
    for path, methods in document["paths"].items():
        if not (operation := methods.get("get")):
            continue
        kind = path.removeprefix(PREFIX).lstrip("/").partition("/")[0]
        right = {**values[""], **values.get(kind, {})}
        for parameter in operation.get("parameters", ()):
            name, place = parameter["name"], parameter["in"]
            for value in (*INJECTED, *NUMBERS, *BROKEN):
                if place == "path":
                    url = path.format_map({**right, name: value})
                elif place == "query":
                    url = f"{path.format_map(right)}?{name}={value}"
                else:
                    continue
                asked += 1
                status, body = ask(url)
                if status >= 500:
                    wrong.append(f"{url[:200]}: {status} {body[:200]!r}")
                elif status == 200 and value in INJECTED and name not in ("search", "cursor"):
                    found = json.loads(body)
                    if found.get("results", found):
                        wrong.append(f"{url[:200]} found {body[:200]!r}")
        filters = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
        for query in (
            "&".join(f"{name}=1&{name}=2" for name in filters),
            "&".join(f"{name}[]=1" for name in filters[:3]),
            "&".join(f"vendor={n}" for n in range(200)),
            "=&&=;&%",
            "limit=1&limit=x&offset=-1",
        ):
            asked += 1
            status, body = ask(f"{path.format_map(right)}?{query}")
            if status >= 500:
                wrong.append(f"{path}?{query[:100]}: {status} {body[:200]!r}")
    assert wrong == []
    assert asked > 4000


def test_filters_resist_sql_injection(ask: Asking) -> None:
    status, body = ask(f"{PREFIX}/products?limit=1000")
    rows = json.loads(body)["results"]
    assert status == 200
    assert len(rows) > 50
    name = rows[0]["name"]
    for value, expected in (
        (name, [row for row in rows if row["name"] == name]),
        (name.upper() + "x", []),
        (f"{name}' OR '1'='1", []),
        (f"%{name[1:]}", []),
        ("", []),
    ):
        _, body = ask(f"{PREFIX}/products?{urlencode({'name': value})}")
        assert json.loads(body)["results"] == expected
    for word in ("%", "_", "\\", "' OR 1=1 --"):
        _, body = ask(f"{PREFIX}/products?{urlencode({'search': word, 'limit': 1000})}")
        told = [
            row
            for row in rows
            if any(word in (row[column] or "") for column in ("name", "brand", "sku"))
        ]
        assert json.loads(body)["count"] == len(told), word


def hostile(body: Any) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Return invalid variants of the valid *body*, with their headers."""
    as_json = {"Content-Type": "application/json"}
    right = json.dumps(body).encode()
    yield b"[" * 100_000, as_json
    yield b'{"a":' * 50_000, as_json
    yield b'{"operation":' + b"[" * 900 + b"]" * 900 + b"}", as_json
    yield b"\xff\xfe{}", as_json
    yield b'{"error": "\xed\xa0\x80", "provider": "\xff"}', as_json
    yield b"", as_json
    for value in ("null", "[]", '"x"', "1e999", "NaN", "9" * 5000, "[[[{}]]]", "{}{}"):
        yield value.encode(), as_json
    if isinstance(body, dict) and body:
        for name in body:
            for value in ('"\\u0000"', '"\\ud800"', "1e999", "9" * 400, "9" * 5000, '{"a": []}'):
                made = {key: json.dumps(given) for key, given in body.items()} | {name: value}
                said = ", ".join(f'"{key}": {given}' for key, given in made.items())
                yield f"{{{said}}}".encode(), as_json
            yield right[:-1] + f', "{name}": [1]}}'.encode(), as_json
    for media in ("text/plain", "application/xml", "multipart/form-data", "x", "/;;;=", ""):
        yield right, {"Content-Type": media}
    yield right.decode().encode("utf-16"), {"Content-Type": "application/json; charset=utf-16"}
    yield right, {"Content-Type": "application/json; charset=nothing"}
    yield b"\x1f\x8b\x00", {**as_json, "Content-Encoding": "gzip"}
    yield right, {**as_json, "Idempotency-Key": "x" * 300}


def test_hostile_bodies_cause_no_server_error(served: Served, ask: Asking) -> None:
    said = {"username": "nobody", "password": "x"}
    more = {"token": said, "token/refresh": {"refresh": "x"}, "token/revoke": {"refresh": "x"}}
    wrong = []
    asked = 0
    for endpoint in endpoints(served):
        if endpoint.method == "GET" or not endpoint.url.startswith(PREFIX):
            continue
        right = BODIES.get((endpoint.method, endpoint.path)) or more.get(endpoint.path) or {}
        for body, headers in hostile(right):
            asked += 1
            status, answer = ask(endpoint.url, endpoint.method, body, **headers)
            # Too many failed log-ins give 429, which is fine.
            if status >= 500 or (status == 401 and "token" not in endpoint.path):
                wrong.append(f"{endpoint.method} {endpoint.url} {body[:80]!r} {headers}: {status}")
            elif status >= 400:
                assert json.loads(answer)["status"] == status
    assert wrong == []
    assert asked > 500


def raw(served: Served, *parts: bytes, pause: float = 0.0, seconds: float = WAIT_LIMIT_S) -> bytes:
    """Send bytes and return all that the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), seconds) as connection:
        answer = b""
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


def head(served: Served, line: str, *headers: str) -> bytes:
    """Return the head of a request with an admin's key."""
    said = [line, "Host: x", f"Authorization: Bearer {served.world.keys['admin']}", *headers]
    return "\r\n".join([*said, "", ""]).encode()


@pytest.mark.parametrize(
    "line", [f"POST {PREFIX}/catalogs HTTP/1.1", f"GET {PREFIX}/products HTTP/1.1"]
)
def test_large_body_is_refused_unread(served: Served, line: str) -> None:
    answer = raw(served, head(served, line, "Content-Length: 1000000000"))
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b"connection: close" in answer.lower()


def test_chunked_body_is_cut_off_at_the_limit(served: Served) -> None:
    begin = head(served, f"POST {PREFIX}/catalogs HTTP/1.1", "Transfer-Encoding: chunked")
    chunk = b"%x\r\n" % 2**16 + b" " * 2**16 + b"\r\n"
    answer = raw(served, begin, *[chunk] * 64)
    # The server may have reset the connection before its answer was read.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 "), answer
    answer = raw(served, begin, *[chunk] * 17)
    assert answer.startswith(b"HTTP/1.1 413 "), answer


def test_slow_body_gives_408(served: Served) -> None:
    begin = head(served, f"POST {PREFIX}/catalogs HTTP/1.1", "Content-Length: 100")
    began = time.monotonic()
    answer = raw(served, begin, *[b" "] * 10, pause=0.5)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert time.monotonic() - began > 2.5
    assert busy(served) == []


def busy(served: Served) -> list[Any]:
    """Return state and query of the database connections that are not idle."""
    with served.engine.connect() as connection:
        found = connection.execute(
            text(
                """SELECT state, query FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()
                     AND state <> 'idle'"""
            )
        )
        return [tuple(row) for row in found]


def test_slow_readers_hold_no_connection_to_the_database(served: Served) -> None:
    many(served)
    queries = ("stations?limit=1000", "stations?format=ndjson", "stations?format=csv")
    with contextlib.ExitStack() as stack:
        for query in queries * 4:
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", served.port))
            reader.sendall(head(served, f"GET {PREFIX}/guarded-{query} HTTP/1.1"))
            assert reader.recv(15).startswith(b"HTTP/1.1 200")
        until(lambda: busy(served) == [], what=lambda: busy(served))
        assert served.client(served.world.keys["user"]).get("/fuel-stations").status_code == 404
        with served.engine.connect() as connection:
            held = f"""SELECT count(*) FROM pg_locks
                       WHERE relation = 'public.stations'::regclass
                         AND database = {THIS_DATABASE}"""
            assert connection.execute(text(held)).scalar_one() <= 1
    # They have gone; whoever comes gets all of it.
    client = served.client(served.world.keys["admin"])
    whole = client.get(f"{PREFIX}/guarded-stations?format=ndjson")
    assert whole.text.count("\n") == MANY + 4
    until(lambda: busy(served) == [], what=lambda: busy(served))


def many(served: Served) -> None:
    """Insert more stations than the buffers between server and client hold."""
    given_copies(served.engine, "stations", MANY)


def test_idle_connections_do_not_block_requests(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for n in range(200):
            idle = stack.enter_context(
                socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_LIMIT_S)
            )
            if n % 2:
                idle.sendall(b"GET /heal")
        began = time.monotonic()
        client = served.client(served.world.keys["user"])
        assert client.get(f"{PREFIX}/fuel-stations?limit=1").status_code == 200
        assert time.monotonic() - began < 30


def test_too_large_request_head_is_refused(served: Served) -> None:
    for request in (
        head(served, "GET /healthz HTTP/1.1", "X-Much: " + "x" * 2**20),
        head(served, f"GET /{'x' * 100_000} HTTP/1.1"),
        b"x" * 2**20,
    ):
        answer = raw(served, request)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert served.client().get("/healthz").status_code == 200


def test_many_log_ins_do_not_block_requests(served: Served) -> None:
    client = served.client(served.world.keys["user"])

    def log_in(n: int) -> int:
        said = {"username": f"{'admin-user' if n % 2 else n}", "password": f"{PASSWORD}{n}"}
        return served.client().post(f"{PREFIX}/token", json=said).status_code

    with ThreadPoolExecutor(40) as pool:
        storm = [pool.submit(log_in, n) for n in range(80)]
        slowest = 0.0
        while not all(each.done() for each in storm):
            began = time.monotonic()
            assert client.get(f"{PREFIX}/fuel-stations?limit=1").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
    answers = {each.result() for each in storm}
    assert answers <= {401, 429, 503}
    assert answers & {429, 503}
    assert slowest < 60


def test_secrets_are_not_logged(served: Served, log: list[str]) -> None:
    """Runs last, because it checks the log of all other tests of the module."""
    with served.engine.begin() as connection:
        connection.execute(text("DELETE FROM catlog.login_failure"))
    pair = served.tokens("service-user")
    client = served.client(pair["access"])
    assert client.get(f"{PREFIX}/fuel-stations?search={PASSWORD}").status_code == 422
    client.post(f"{PREFIX}/token/refresh", json={"refresh": pair["refresh"]})
    said = "\n".join(log)
    assert "Traceback" not in said, said
    for secret in (PASSWORD, *pair.values(), *served.world.keys.values()):
        assert secret not in said
    assert not re.search(r"catlog_[0-9a-f]{8}_|eyJ", said)
    assert threading.active_count() < 200
