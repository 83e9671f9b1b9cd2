"""Demo server: the owners' figures, stable pages, changes and injected faults."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from catlog_scrapy.demo import fuel, hallmark
from catlog_scrapy.demo.server import DemoServer

SHOP_PATHS = [
    f"/hallmark/year/{year}?page={page}"
    for year in hallmark.YEARS
    for page in range(1, hallmark.pages(year) + 1)
]


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(fuel_delay=0) as server:
        yield server


def connect(server: DemoServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)


def get(server: DemoServer, path: str) -> tuple[int, bytes]:
    connection = connect(server)
    connection.request("GET", path)
    response = connection.getresponse()
    try:
        return response.status, response.read()
    finally:
        connection.close()


def document(server: DemoServer, path: str) -> Any:
    with urlopen(server.url + path) as response:
        assert response.headers["Content-Type"] == "application/json"
        return json.load(response)


def test_two_demo_servers_serve_the_same_pages() -> None:
    with DemoServer(fuel_delay=0) as one, DemoServer(fuel_delay=0) as other:
        paths = ["/fuel/fuel-stations", "/fuel/fuel-prices", "/hallmark/", *SHOP_PATHS[-9:]]
        first = [get(one, path) for path in paths]
        hallmark.year_page.cache_clear()
        one.change()
        assert first == [get(other, path) for path in paths]
        assert all(status == 200 for status, _ in first)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/hallmark/year/1972",
        "/hallmark/year/2021",
        "/hallmark/year/new",
        "/hallmark/year/1973?page=2",
        "/hallmark/year/1973?page=0",
        "/hallmark/year/1973?page=x",
        "/hallmark/cart",
        "/fuel/",
    ],
)
def test_unknown_path_is_not_found(server: DemoServer, path: str) -> None:
    assert get(server, path) == (404, b"Not Found")


def test_demo_server_can_be_limited_to_some_years() -> None:
    with DemoServer(years=(1973, 2014)) as server:
        assert get(server, "/hallmark/")[1].count(b'class="year-link"') == 2
        assert get(server, "/hallmark/year/2014?page=8")[0] == 200
        assert get(server, "/hallmark/year/1974")[0] == 404


def test_demo_robots_txt_allows_all_pages(server: DemoServer) -> None:
    assert get(server, "/robots.txt") == (200, b"User-agent: *\nAllow: /\n")


def test_demo_fuel_network_has_its_owners_numbers(server: DemoServer) -> None:
    stations = document(server, "/fuel/fuel-stations")
    assert [station["id"] for station in stations] == [1, 2, 3, 4]
    assert [station["coordinates"] for station in stations] == [
        [55.797817, 49.130638],
        [55.794126, 49.120886],
        [55.7520, 48.7446],
        [44.816068, 20.460431],
    ]
    assert {
        station["id"]: [tuple(price.values()) for price in station["fuel_prices"]]
        for station in document(server, "/fuel/fuel-prices")
    } == {
        1: [("АИ-95", 100, "RUB"), ("АИ-98", 120, "RUB"), ("АИ-95+", 110, "RUB")],
        2: [],
        3: [],
        4: [("АИ-95", 200, "RSD"), ("АИ-98", 240, "RSD"), ("АИ-95+", 220, "RSD")],
    }


def test_demo_stations_respond_after_their_delay() -> None:
    with DemoServer(fuel_delay=1.0) as server:
        started = time.monotonic()
        document(server, "/fuel/fuel-prices")
        assert time.monotonic() - started < 1.0
        document(server, "/fuel/fuel-stations")
        assert time.monotonic() - started >= 1.0
    assert DemoServer().world.fuel_delay == 4.0


@pytest.mark.parametrize("step", range(1, 10))
def test_change_of_the_demo_fuel_network(step: int) -> None:
    before, after = (
        {station["id"]: station for station in fuel.stations(one)} for one in (step - 1, step)
    )
    assert before.keys() ^ after.keys() == ({fuel.AWAY} if step in (2, 4) else set())
    # The third would touch the station that is away.
    kept = before.keys() & after.keys()
    assert sum(before[id_] != after[id_] for id_ in kept) == (step != 3)
    before, after = (
        [price for one in fuel.prices(when) for price in one["fuel_prices"]]
        for when in (step - 1, step)
    )
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 2


def test_change_of_the_demo_shows_on_most_pages(server: DemoServer) -> None:
    paths = ["/fuel/fuel-stations", "/fuel/fuel-prices", *SHOP_PATHS]
    before = [get(server, path) for path in paths]
    server.change()
    after = [get(server, path) for path in paths]
    assert sum(old != new for old, new in zip(before, after, strict=True)) > len(paths) * 0.9


def test_demo_connection_serves_many_requests(server: DemoServer) -> None:
    connection = connect(server)
    connection.connect()
    kept = connection.sock
    for path in ("/hallmark/", "/nothing", "/fuel/fuel-prices"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.version, response.will_close) == (11, False)
        assert len(response.read()) == int(response.headers["Content-Length"])
        assert connection.sock is kept
    connection.close()


def test_stopped_demo_server_restarts_on_the_same_port() -> None:
    server = DemoServer().start()
    url, connection = server.url, connect(server)
    connection.request("GET", "/robots.txt")
    connection.getresponse().read()
    server.stop()
    # The kept-alive connection is closed, and no new connection is accepted.
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        connection.request("GET", "/robots.txt")
        connection.getresponse()
    with pytest.raises(ConnectionError):
        get(server, "/robots.txt")
    connection.close()
    with server:
        assert server.url == url
        assert get(server, "/robots.txt")[0] == 200
    server.stop()


def test_stop_of_the_demo_server_does_not_wait_for_a_slow_page() -> None:
    with DemoServer(fuel_delay=60) as server:
        connection = connect(server)
        connection.request("GET", "/fuel/fuel-stations")
        while not server.requests:
            time.sleep(0.01)
        started = time.monotonic()
    assert time.monotonic() - started < 30
    connection.close()


def test_demo_server_injects_faults(server: DemoServer) -> None:
    right = get(server, "/hallmark/")
    server.misbehave("/hallmark", status=503)
    assert get(server, "/hallmark/") == (503, b"Service Unavailable")
    assert get(server, "/fuel/fuel-prices")[0] == 200

    server.misbehave("/hallmark/year/1973", body=b"<p>We have moved</p>", times=1)
    assert get(server, "/hallmark/year/1973") == (200, b"<p>We have moved</p>")
    assert get(server, "/hallmark/year/1973")[0] == 503

    server.misbehave("/fuel", close=True)
    with pytest.raises(http.client.RemoteDisconnected):
        get(server, "/fuel/fuel-prices")

    server.misbehave("/hallmark/year/1974", redirect="/hallmark/")
    server.misbehave("/hallmark/", delay=0.2, times=1)
    started = time.monotonic()
    assert get(server, "/hallmark/") == right
    assert time.monotonic() - started >= 0.2

    server.misbehave("/hallmark/year/1975", cut=True)
    with pytest.raises(http.client.IncompleteRead):
        get(server, "/hallmark/year/1975")
    server.misbehave("/hallmark/year/1975", rewrite=bytes.upper)
    assert get(server, "/hallmark/year/1975")[1].startswith(b"<!DOCTYPE HTML>\n<HTML")
    server.misbehave("/hallmark/year/1975", status=429, headers={"Retry-After": "2"})
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{server.url}/hallmark/year/1975")
    with refused.value as response:
        assert response.headers["Retry-After"] == "2"

    with pytest.raises(TypeError):
        server.misbehave("/", state=500)
    server.behave()
    assert get(server, "/hallmark/") == right


def test_demo_server_injects_redirects(server: DemoServer) -> None:
    server.misbehave("/old", redirect="/hallmark/")
    with urlopen(Request(f"{server.url}/old")) as response:
        assert urlsplit(response.url).path == "/hallmark/"
    assert server.requests == ["/old", "/hallmark/"]
