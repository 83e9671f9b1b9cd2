"""Every endpoint for every role and every kind of credentials.

Refused requests read nothing and change nothing.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from sqlalchemy import Engine

from catlog_scrapy.api.paths import PREFIX, UNPREFIXED_PATHS
from catlog_scrapy.store.access.keys import add_key
from catlog_scrapy.store.access.tokens import signing_key
from catlog_scrapy.store.access.users import add_user, disable_user
from tests.support.factories import sql
from tests.support.server import PASSWORD, PICTURE, ROLES, Served, Worlds, checksum

# By endpoint: its permission, and the first letters of the roles that have the permission. An
# endpoint without a permission is open to all.
READERS = {
    "providers": "ai",
    "catalogs": "ais",
    "catalog_schemes": "ai",
    "catalog_scheme_operations": "ais",
    "catalog_scheme_operation_instances": "ai",
    "catalog_results": "ai",
    "catalog_summaries": "ai",
    "schedules": "ai",
    "audit": "ai",
    "fuel-stations": "aisu",
    "products": "aisu",
    "learning-statistics": "ais",
    "guarded-stations": "aisu",
    "guarded-fuel": "aisu",
}
PERMISSIONS: dict[tuple[str, str], tuple[str, str] | None] = {
    ("POST", "token"): None,
    ("POST", "token/refresh"): None,
    ("POST", "token/revoke"): None,
    ("GET", "healthz"): None,
    ("GET", "readyz"): None,
    ("GET", "media/{path}"): ("media:read", "aisu"),
    **{("GET", path): (f"{path}:read", who) for path, who in READERS.items()},
    **{
        ("GET", f"{path}/{{id}}"): (f"{path}:read", who)
        for path, who in READERS.items()
        if path not in ("catalog_results", "catalog_summaries", "products", "learning-statistics")
    },
    **{
        ("GET", f"{path}/{key}{end}"): (f"{path}:read", READERS[path])
        for path, key in (
            ("fuel-stations", "{id}"),
            ("guarded-stations", "{id}"),
            ("guarded-fuel", "{id}"),
            ("products", "{vendor}/{sku}/{name}/{link}"),
            ("learning-statistics", "{day}/{course}/{task}"),
        )
        for end in ("", "/history")
    },
    ("GET", "catalog_results/{instance_id}/{seq}"): ("catalog_results:read", "ai"),
    ("GET", "catalog_summaries/{scheme_id}/{day}"): ("catalog_summaries:read", "ai"),
    ("GET", "schedules/{schedule_id}/due_times"): ("schedules:read", "ai"),
    ("POST", "schedule_catalog_scheme_operation/{operation_id}"): (
        "catalog_scheme_operations:schedule",
        "ais",
    ),
    ("POST", "catalogs"): ("catalogs:create", "ais"),
    ("POST", "catalogs/{catalog_id}/retry"): ("catalogs:retry", "ai"),
    ("POST", "catalogs/{catalog_id}/cancel"): ("catalogs:cancel", "ai"),
    ("POST", "schedules"): ("schedules:create", "ai"),
    ("PATCH", "schedules/{id}"): ("schedules:change", "ai"),
    ("POST", "schedules/{schedule_id}/pause"): ("schedules:change", "ai"),
    ("POST", "schedules/{schedule_id}/resume"): ("schedules:change", "ai"),
    ("POST", "attempts/claim"): ("attempts:execute", "as"),
    **{
        ("POST", f"attempts/{{attempt}}/{verb}"): ("attempts:execute", "as")
        for verb in ("heartbeat", "results", "complete", "fail", "release")
    },
}
# Scopes of the narrowed keys.
SCOPES = ["providers:read", "fuel-stations:read", "guarded-fuel:read", "catalogs:create"]
SCOPES += ["attempts:execute"]
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "catalogs"): {"provider": "tatneft", "scheme": "prices"},
    ("POST", "schedules"): {
        "provider": "tatneft",
        "scheme": "prices",
        "name": "hers",
        "cron": "0 1 * * *",
    },
    ("PATCH", "schedules/{id}"): {"cron": "0 2 * * *"},
    ("POST", "attempts/claim"): {"operations": ["acme/goods"], "worker": "one"},
    ("POST", "attempts/{attempt}/results"): {"records": [{"id": "1", "title": "x"}]},
    ("POST", "attempts/{attempt}/complete"): {"batches": 1},
    ("POST", "attempts/{attempt}/fail"): {"error": "x"},
}


@pytest.fixture(scope="module")
def served(worlds: Worlds) -> Iterator[Served]:
    with worlds.serving() as served:
        given_a_summary(served.engine)
        yield served


def given_a_summary(engine: Engine) -> None:
    """Add the summary of a day's catalogs."""
    sql(
        engine,
        """INSERT INTO catlog.catalog_summary
           SELECT id, '2026-01-01', 1, 1, now(), now(), 1, 0, 0, 0, 1, 1, 1, 0, 0, '{}'
           FROM catlog.catalog_scheme LIMIT 1""",
    )


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str
    url: str
    body: Any
    permission: str | None
    who: str


def endpoints(served: Served) -> list[Endpoint]:
    """Return the documented endpoints, also without the prefix, each with a valid request.

    Fails for an endpoint that the table lacks.
    """
    document = served.client().get("/openapi.json").json()
    known = {
        (method.upper(), path.removeprefix(PREFIX).lstrip("/")): path
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert set(known) == set(PERMISSIONS)
    values = path_values(served)
    found = []
    for (method, name), path in known.items():
        needed = PERMISSIONS[method, name]
        permission, who = needed or (None, "")
        kind = name.partition("/")[0]
        url = path.format_map({**values[""], **values.get(kind, {})})
        if name.endswith("/results"):
            url += "?batch=1"
        body = BODIES.get((method, name))
        urls = [url]
        bare = url.removeprefix(PREFIX)
        if UNPREFIXED_PATHS.match(bare):
            urls.append(bare + ("" if "?" in bare else "/"))
        found += [Endpoint(method, name, each, body, permission, who) for each in urls]
    return found


def path_values(served: Served) -> dict[str, dict[str, str]]:
    """Return values of path parameters of existing rows, by the first word of the path."""
    client = served.client(served.world.keys["admin"])
    values: dict[str, dict[str, str]] = {}
    for path in READERS:
        [row, *_] = client.get(f"{PREFIX}/{path}?limit=1").json()["results"] or [{"id": 1}]
        values[path] = {name: quote(str(value), safe="") for name, value in row.items()}
    values["schedules"] = {"id": served.world.ids["schedule"]}
    values[""] = {
        "catalog_id": served.world.ids["cancelled"],
        "schedule_id": served.world.ids["schedule"],
        "operation_id": served.world.ids["operation"],
        "attempt": f"{served.world.ids['external']}.1",
        "path": PICTURE,
    }
    return values


def with_another_letter(part: str) -> str:
    letter = "B" if part[5] == "A" else "A"
    return part[:5] + letter + part[6:]


def with_another_role(payload: str) -> str:
    """Return *payload* with the role admin and a distant expiry."""
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    said = json.dumps({**claims, "role": "admin", "exp": 2**33}).encode()
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()


def bad_credentials(served: Served) -> list[tuple[str, str | None]]:
    """Return invalid credentials with their names."""
    key = signing_key(served.engine)
    bad: list[tuple[str, str | None]] = [
        ("nothing", None),
        ("revoked key", served.world.keys["revoked"]),
        ("expired key", served.world.keys["expired"]),
        ("key of another format", "sk-" + "a" * 40),
        ("key that nobody has", served.world.keys["admin"][:-4] + "AAAA"),
    ]
    for role in ROLES:
        pair = served.tokens(f"{role}-user")
        access = pair["access"]
        head, payload, signature = access.split(".")
        claims = jwt.decode(access, options={"verify_signature": False})
        gone = f"gone-{role}"
        hash_ = password_hash(served, f"{role}-user")
        add_user(served.engine, gone, role, hash_)
        of_gone = served.tokens(gone)["access"]
        disable_user(served.engine, gone)
        bad += [
            (f"{role}: expired", jwt.encode({**claims, "exp": claims["iat"] - 1}, key)),
            (f"{role}: another head", f"{with_another_letter(head)}.{payload}.{signature}"),
            (f"{role}: another payload", f"{head}.{with_another_role(payload)}.{signature}"),
            (f"{role}: another signature", f"{head}.{payload}.{with_another_letter(signature)}"),
            (f"{role}: a refresh token", pair["refresh"]),
            (f"{role}: alg none", jwt.encode(claims, None, algorithm="none")),
            (f"{role}: another algorithm", jwt.encode(claims, key * 2, algorithm="HS512")),
            (f"{role}: another's signing key", jwt.encode(claims, "k" * 32, algorithm="HS256")),
            (f"{role}: a disabled user's", of_gone),
        ]
    return bad


def password_hash(served: Served, name: str) -> str:
    with served.engine.connect() as connection:
        hash_: str = connection.exec_driver_sql(
            "SELECT password_hash FROM catlog.api_user WHERE name = %s", (name,)
        ).scalar_one()
        return hash_


def test_every_endpoint_allows_only_its_roles(served: Served) -> None:
    found = endpoints(served)
    good: list[tuple[str, str, bool, str]] = []
    for role in ROLES:
        narrowed = add_key(served.engine, f"narrowed-{role}", role, scopes=SCOPES)
        good += [
            (role, "token", False, served.tokens(f"{role}-user")["access"]),
            (role, "key", False, served.world.keys[role]),
            (role, "narrowed key", True, narrowed),
        ]
    bad = bad_credentials(served)
    before = checksum(served.engine)
    client = served.client()

    def ask(endpoint: Endpoint, credentials: str | None, method: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {credentials}"} if credentials else {}
        return client.request(
            method or endpoint.method, endpoint.url, json=endpoint.body, headers=headers
        )

    asked = refused = served_ = 0
    wrong: list[str] = []
    permitted: list[tuple[Endpoint, str, str]] = []
    for endpoint in found:
        if endpoint.permission is None:
            continue
        for what, credentials in bad:
            asked += 1
            refused += 1
            answer = ask(endpoint, credentials)
            if answer.status_code != 401 or "www-authenticate" not in answer.headers:
                wrong.append(f"{endpoint.method} {endpoint.url} {what}: {answer.status_code}")
        if endpoint.method == "GET":
            asked += 1
            refused += 1
            if ask(endpoint, None, "HEAD").status_code != 401:
                wrong.append(f"HEAD {endpoint.url}")
        for role, kind, is_narrowed, credentials in good:
            may = role[0] in endpoint.who
            if may and (not is_narrowed or endpoint.permission in SCOPES):
                permitted.append((endpoint, f"{role} {kind}", credentials))
                continue
            asked += 1
            refused += 1
            answer = ask(endpoint, credentials)
            if answer.status_code != 403:
                wrong.append(f"{endpoint.method} {endpoint.url} {role}: {answer.status_code}")
    assert wrong == []
    assert checksum(served.engine) == before
    for endpoint, whose, credentials in permitted:
        asked += 1
        served_ += 1
        answer = ask(endpoint, credentials)
        status = answer.status_code
        is_fine = status == 200 if endpoint.method == "GET" else 200 <= status < 500
        if not is_fine or status in (401, 403):
            said = f"{status} {answer.text[:200]}"
            wrong.append(f"{endpoint.method} {endpoint.url} {whose}: {said}")
    assert wrong == []
    assert checksum(served.engine) != before
    assert asked == refused + served_ > 3000


def test_token_endpoints_take_their_own_kind_of_token(served: Served) -> None:
    client = served.client()
    pair = served.tokens("user-user")
    for path in ("token/refresh", "token/revoke"):
        for wrong in (pair["access"], served.world.keys["admin"], pair["refresh"][:-8], "x"):
            answer = client.post(f"{PREFIX}/{path}", json={"refresh": wrong})
            assert answer.status_code == 401, (path, wrong)
    answer = client.post(f"{PREFIX}/token/revoke", json={"refresh": pair["refresh"]})
    assert answer.status_code == 204
    revoked = client.post(f"{PREFIX}/token/refresh", json={"refresh": pair["refresh"]})
    assert revoked.status_code == 401
    for name in ("disabled-user", "nobody"):
        said = {"username": name, "password": PASSWORD}
        assert client.post(f"{PREFIX}/token", json=said).status_code == 401
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


HIDDEN = (
    ("user", "guarded-stations", ("address", "image_urls")),
    ("service", "guarded-stations", ("image_urls",)),
    ("user", "guarded-fuel", ("address",)),
)


@pytest.mark.parametrize(("role", "path", "columns"), HIDDEN)
def test_hidden_column_is_in_no_response(
    served: Served, role: str, path: str, columns: tuple[str, ...]
) -> None:
    admin = served.client(served.world.keys["admin"])
    client = served.client(served.world.keys[role])
    everything = admin.get(f"{PREFIX}/{path}").json()["results"]
    assert len(everything) == 4
    assert all(column in everything[0] for column in columns)
    told = {"address": "Федосеевская", "image_urls": "/images/"}
    secrets = [word for name, word in told.items() if name in columns]
    assert all(word in json.dumps(everything, ensure_ascii=False) for word in secrets)
    for query in (
        "",
        "?cursor=",
        "?cursor=&order=-number",
        "?as_of=2100-01-01T00:00Z",
        "?format=csv",
        "?format=ndjson",
        "?format=csv&as_of=2100-01-01T00:00Z",
        "/1",
        "/1?as_of=2100-01-01T00:00Z",
        "/1/history",
    ):
        answer = client.get(f"{PREFIX}/{path}{query}")
        assert answer.status_code == 200, answer.text
        assert "101" in answer.text
        assert all(column not in answer.text for column in columns), answer.text
        assert all(word not in answer.text for word in secrets), answer.text
    for column in columns:
        for query in (
            f"?fields={column}",
            f"?fields=id,{column}",
            f"?order={column}",
            f"?order=-{column}",
            f"?order={column}&format=csv",
            f"?{column}=Казань",
            f"?{column}=Казань&format=ndjson",
            f"?{column}=Казань&cursor=",
        ):
            refused = client.get(f"{PREFIX}/{path}{query}")
            nowhere = client.get(f"{PREFIX}/{path}{query.replace(column, 'nowhere')}")
            assert refused.status_code == nowhere.status_code == 422, query
            assert "101" not in refused.text
            if "=Казань" not in query:
                assert refused.text.replace(column, "nowhere") == nowhere.text
    # The search of others finds it, theirs does not.
    for word, by_admin, by_them in (("Федосеевская", 1, 0), ("101", 1, 1)):
        if "address" in columns:
            assert admin.get(f"{PREFIX}/{path}?search={word}").json()["count"] == by_admin
            assert client.get(f"{PREFIX}/{path}?search={word}").json()["count"] == by_them
    # A cursor of who sees more gets no further.
    page = admin.get(f"{PREFIX}/{path}?cursor=&order={columns[0]}&limit=1")
    if page.status_code == 200:
        url = page.json()["next"]
        assert client.get(url).status_code == 422
        assert client.get(url.replace(f"order={columns[0]}", "order=")).status_code == 422
    tag = admin.get(f"{PREFIX}/{path}").headers["etag"]
    answer = client.get(f"{PREFIX}/{path}", headers={"If-None-Match": tag})
    assert answer.status_code == 200
