"""Publishes between page requests: each response and its ETag belong to a single load."""

import contextlib
import csv
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from catlog_scrapy.api.paths import PREFIX
from tests.support.server import Served, Worlds, load, settings_of
from tests.support.waiting import until

SECONDS = 3.0
STATION = {
    "address": "x",
    "coordinate_x": 1.0,
    "coordinate_y": 2.0,
    "image_urls": [],
    "services": [],
}


@pytest.fixture
def served(worlds: Worlds) -> Iterator[Served]:
    with worlds.serving() as served:
        yield served


def publish(served: Served, worlds: Worlds, n: int) -> None:
    """Load and publish 299 + *n* stations that all have the number *n*."""
    rows = [{**STATION, "id": id_, "number": str(n)} for id_ in range(1, size(n) + 1)]
    load(served.engine, settings_of(worlds.folder), "tatneft", "stations", {"fuel_stations": rows})


def size(n: int) -> int:
    """Return the number of stations of the *n*-th load."""
    return 299 + n


def is_of_one_load(rows: list[Any]) -> bool:
    return len({row["number"] for row in rows}) == 1


@pytest.mark.parametrize("path", ["guarded-stations", "fuel-stations"])
def test_each_response_shows_a_single_load(served: Served, worlds: Worlds, path: str) -> None:
    publish(served, worlds, 1)
    key = served.world.keys["admin"]
    ended = threading.Event()
    bodies: dict[tuple[str, str], bytes] = {}
    counts = {"pages": 0, "streams": 0, "cursors": 0, "tags": 0, "unchanged": 0}
    numbers: set[str] = set()

    def get(client: httpx.Client, url: str, **headers: str) -> httpx.Response:
        answer = client.get(
            url if url.startswith("http") else f"{PREFIX}/{path}{url}", headers=headers
        )
        assert answer.status_code in (200, 304), answer.text
        return answer

    def pages(client: httpx.Client) -> None:
        url: str | None = "?limit=70"
        while url:
            page = get(client, url).json()
            assert is_of_one_load(page["results"])
            number = page["results"][0]["number"]
            numbers.add(number)
            assert page["count"] == size(int(number))
            counts["pages"] += 1
            url = page["next"]

    def cursors(client: httpx.Client) -> None:
        url: str | None = "?limit=70&cursor="
        while url:
            page = get(client, url).json()
            assert is_of_one_load(page["results"])
            counts["cursors"] += 1
            url = page["next"]

    def streams(client: httpx.Client) -> None:
        for name in ("ndjson", "csv"):
            text = get(client, f"?format={name}&fields=id,number").text
            if name == "csv":
                rows = list(csv.DictReader(io.StringIO(text)))
            else:
                rows = [httpx.Response(200, content=line).json() for line in text.splitlines()]
            assert is_of_one_load(rows)
            assert len(rows) == size(int(rows[0]["number"]))
            counts["streams"] += 1

    def tags(client: httpx.Client) -> None:
        known: dict[str, str] = {}
        for url in ("?limit=10", "?limit=1000", "?format=ndjson", "?search=nothing") * 5:
            if "search" in url and path == "fuel-stations":
                continue
            answer = get(client, url, **({"If-None-Match": known[url]} if url in known else {}))
            tag = answer.headers["etag"]
            if answer.status_code == 304:
                assert tag == known[url]
                counts["unchanged"] += 1
            else:
                # The same tag, the same bytes.
                assert bodies.setdefault((url, tag), answer.content) == answer.content
            known[url] = tag
            counts["tags"] += 1

    def repeat(work: Callable[[httpx.Client], None]) -> None:
        client = served.client(key)
        while not ended.is_set():
            work(client)

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(repeat, work) for work in (pages, cursors, streams, tags)]
        began, n = time.monotonic(), 1
        client = served.client(key)
        with contextlib.ExitStack() as stack:
            stack.callback(ended.set)

            def has_seen_little() -> bool:
                return n <= 2 or len(numbers) <= 1 or min(counts.values()) <= 5

            while time.monotonic() - began < SECONDS or has_seen_little():
                if any(reader.done() for reader in readers):
                    break
                before = get(client, "").headers["etag"]
                n += 1
                publish(served, worlds, n)
                after = get(client, "", **{"If-None-Match": before})
                # A request after the publish sees the new load.
                assert after.status_code == 200
                assert after.json()["count"] == size(n)
                assert after.json()["results"][0]["number"] == str(n)
                same = get(client, "", **{"If-None-Match": after.headers["etag"]})
                assert (same.status_code, same.content) == (304, b"")
    for reader in readers:
        reader.result()
    assert n > 2
    assert min(counts.values()) > 5, counts
    assert len(numbers) > 1
    until(lambda: served.engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
