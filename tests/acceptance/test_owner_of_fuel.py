"""Requests and responses of the fuel stations' clients, as SOURCES.md describes them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema_rs import Draft202012Validator

from catlog_scrapy.demo.server import DemoServer
from tests.support.project import inherited_environment
from tests.support.server import PASSWORD, Served, Worlds

# The responses that `SOURCES.md` describes, as JSON schemas.
NULLABLE_PLACE = {"type": ["string", "null"], "format": "uri"}
NAMED = {
    "type": "object",
    "required": ["id", "name", "icon"],
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "icon": {"type": "string"},
    },
    "additionalProperties": False,
}
TOKEN = {"type": "string", "pattern": r"^[\w-]+\.[\w-]+\.[\w-]+$"}
STATION = {
    "type": "object",
    "required": [
        "id",
        "coordinate_x",
        "coordinate_y",
        "number",
        "address",
        "image_urls",
        "fuels",
        "services",
    ],
    "properties": {
        "id": {"type": "integer"},
        "coordinate_x": {"type": "number"},
        "coordinate_y": {"type": "number"},
        "number": {"type": "string"},
        "address": {"type": "string"},
        "image_urls": {"type": "array", "items": {"type": "string"}},
        "fuels": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["price", "currency", "fuel_type"],
                "properties": {
                    "price": {"type": "number"},
                    "currency": {"enum": ["RUB", "USD", "EUR", "RSD"]},
                    "fuel_type": NAMED,
                },
                "additionalProperties": False,
            },
        },
        "services": {"type": "array", "items": NAMED},
    },
    "additionalProperties": False,
}
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/v1/token/"): {
        "type": "object",
        "required": ["access", "refresh"],
        "properties": {"access": TOKEN, "refresh": TOKEN},
    },
    ("POST", "/api/v1/token/refresh/"): {
        "type": "object",
        "required": ["access"],
        "properties": {"access": TOKEN},
    },
    ("GET", "/api/v1/fuel-stations"): {
        "type": "object",
        "required": ["count", "next", "previous", "results"],
        "properties": {
            "count": {"type": "integer"},
            "next": NULLABLE_PLACE,
            "previous": NULLABLE_PLACE,
            "results": {"type": "array", "items": STATION},
        },
        "additionalProperties": False,
    },
}
PLACES = {
    1: (55.797817, 49.130638, "Федосеевская 36"),
    2: (55.794126, 49.120886, "Дзержинского"),
    3: (None, None, "Университетская 1"),
    4: (44.816068, 20.460431, "Трг републике 3"),
}
PRICES = {
    1: {("АИ-95", 100, "RUB"), ("АИ-98", 120, "RUB"), ("АИ-95+", 110, "RUB")},
    2: set(),
    3: set(),
    4: {("АИ-95", 200, "RSD"), ("АИ-98", 240, "RSD"), ("АИ-95+", 220, "RSD")},
}


@pytest.fixture(scope="module")
def served(worlds: Worlds) -> Iterator[Served]:
    """Return a server of the first state of the demo source, loaded by `scrapy load`."""
    with worlds.database() as url, DemoServer(fuel_delay=0) as source:
        environment = {
            **inherited_environment(),
            "CATLOG_DATABASE_URL": url,
            "CATLOG_HOME": str(worlds.folder / "owner"),
            "CATLOG_BASE_URL_TATNEFT": f"{source.url}/fuel",
        }
        loads = [
            subprocess.Popen(
                [sys.executable, "-m", "scrapy", "load", f"tatneft/{scheme}"],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for scheme in ("references", "prices", "stations")
        ]
        for each in loads:
            said, _ = each.communicate(timeout=540)
            assert each.returncode == 0, said
        with worlds.serving_at(url) as served:
            yield served


def ask(client: httpx.Client, method: str, path: str, **given: Any) -> Any:
    """Return the body of a response, validated by the schema in the owner's document."""
    answer = client.request(method, path, **given)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    Draft202012Validator(OPERATIONS[method, path]).validate(body)
    return body


def test_requests_of_the_fuel_clients_are_answered(served: Served) -> None:
    client = served.client()
    said = {"username": "user-user", "password": PASSWORD}
    assert client.get("/api/v1/fuel-stations").status_code == 401
    pair = ask(client, "POST", "/api/v1/token/", json=said)
    pair = ask(client, "POST", "/api/v1/token/refresh/", json={"refresh": pair["refresh"]})
    client.headers["Authorization"] = f"Bearer {pair['access']}"
    page = ask(client, "GET", "/api/v1/fuel-stations")
    assert (page["count"], page["next"], page["previous"]) == (4, None, None)
    assert [station["id"] for station in page["results"]] == [1, 2, 3, 4]
    for station in page["results"]:
        x, y, street = PLACES[station["id"]]
        assert street in station["address"]
        assert x is None or (station["coordinate_x"], station["coordinate_y"]) == (x, y)
        assert len(station["image_urls"]) == 2
        prices = {(f["fuel_type"]["name"], f["price"], f["currency"]) for f in station["fuels"]}
        assert prices == PRICES[station["id"]]
        assert all(fuel["fuel_type"]["icon"] for fuel in station["fuels"])
    services = {service["name"] for service in page["results"][0]["services"]}
    assert services == {"Кафе", "Автомойка"}


def test_fuel_clients_can_page_through_stations(served: Served) -> None:
    client = served.client(served.tokens("user-user")["access"])
    path = "/api/v1/fuel-stations"
    whole = ask(client, "GET", path)["results"]
    first = ask(client, "GET", path, params={"limit": 3, "offset": 0})
    assert (first["count"], first["previous"], first["results"]) == (4, None, whole[:3])
    second = client.get(first["next"]).json()
    assert (second["count"], second["next"], second["results"]) == (4, None, whole[3:])
    assert client.get(second["previous"]).json() == first
    beyond = ask(client, "GET", path, params={"limit": 3, "offset": 9})
    assert (beyond["count"], beyond["results"]) == (4, [])
