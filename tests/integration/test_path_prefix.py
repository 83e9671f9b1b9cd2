"""Links of a server that a proxy publishes under a path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from catlog_scrapy.api.path_prefix import is_proxy
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.store.access.keys import add_key
from tests.support.executor import application
from tests.support.factories import given_a_catalog, given_a_scheme

FORWARDED = {"X-Forwarded-Prefix": "/catlog"}


@pytest.fixture
def key(engine: Engine) -> str:
    given_a_scheme(engine)
    for _ in range(3):
        given_a_catalog(engine)
    return f"Bearer {add_key(engine, 'ops', 'internal')}"


def client_of(
    engine: Engine, folder: Path, key: str, address: str = "10.0.0.9", **settings: Any
) -> TestClient:
    app = application(engine, CATLOG_HOME=str(folder), CATLOG_POLL=60, **settings)
    return TestClient(
        app, base_url="http://shop.example", headers={"Authorization": key}, client=(address, 1)
    )


@pytest.fixture(params=["header", "setting"])
def client(
    request: pytest.FixtureRequest, engine: Engine, tmp_path: Path, key: str
) -> Iterator[TestClient]:
    """Return a client behind a proxy that names the prefix, or is named by a setting."""
    if request.param == "setting":
        made = client_of(engine, tmp_path, key, CATLOG_API_PREFIX="/catlog/")
    else:
        made = client_of(engine, tmp_path, key, CATLOG_API_PROXIES="10.0.0.0/8")
        made.headers.update(FORWARDED)
    with made:
        yield made


@pytest.mark.parametrize("passed", ["", "/catlog"], ids=["stripped", "whole"])
def test_links_of_pages_begin_with_the_prefix(client: TestClient, passed: str) -> None:
    for query in ("limit=1&offset=1", "limit=1&cursor="):
        page = client.get(f"{passed}/api/v1/catalogs?{query}").json()
        assert page["next"].startswith("http://shop.example/catlog/api/v1/catalogs?")
        path = page["next"].removeprefix("http://shop.example/catlog")
        assert client.get(passed + path).status_code == 200


def test_location_begins_with_the_prefix_also_in_a_stored_response(client: TestClient) -> None:
    asked = {"provider": "acme", "scheme": "goods"}
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        answer = client.post("/api/v1/catalogs", json=asked, headers=headers)
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/catlog/api/v1/catalogs/{answer.json()['id']}"


def test_documentation_is_found_below_the_prefix(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/catlog"}]
    page = client.get("/docs").text
    assert "'/catlog/openapi.json'" in page
    assert '"/catlog/docs/assets/swagger-ui-bundle.js"' in page
    assert client.get("/catlog/docs/assets/swagger-ui.css").status_code == 200


@pytest.mark.parametrize(
    "value", ["//evil.example", "http://evil.example", "/a b", "/a/../b", "/%2e"]
)
def test_malformed_prefix_is_ignored(engine: Engine, tmp_path: Path, key: str, value: str) -> None:
    with client_of(engine, tmp_path, key, CATLOG_API_PROXIES="*") as client:
        page = client.get("/api/v1/catalogs?limit=1", headers={"X-Forwarded-Prefix": value}).json()
        assert page["next"].startswith("http://shop.example/api/v1/catalogs?")


def test_prefix_of_a_client_that_is_no_proxy_is_ignored(
    engine: Engine, tmp_path: Path, key: str
) -> None:
    for settings in ({}, {"CATLOG_API_PROXIES": "10.0.0.1,192.168.0.0/16"}):
        with client_of(engine, tmp_path, key, **settings) as client:
            page = client.get("/api/v1/catalogs?limit=1", headers=FORWARDED).json()
            assert page["next"].startswith("http://shop.example/api/v1/catalogs?")


def test_invalid_setting_of_the_prefix_is_refused(engine: Engine, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="CATLOG_API_PREFIX is 'catlog'; use the path"):
        client_of(engine, tmp_path, key, CATLOG_API_PREFIX="catlog")


def test_proxies_are_addresses_or_networks() -> None:
    proxies = ["10.0.0.1", "fd00::/8", "unix"]
    assert [is_proxy(found, proxies) for found in ("10.0.0.1", "fd00::1", "unix")] == [True] * 3
    assert not is_proxy("10.0.0.2", proxies)
    assert not is_proxy("", proxies)
    assert is_proxy("anything", ["*"])
