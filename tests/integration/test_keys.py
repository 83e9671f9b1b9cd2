"""API keys: shown once, limited to scopes of their role, expired or revoked."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catlog_scrapy.declarations.roles import DEFAULT_ROLES, covers, intersect
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.access import keys
from tests.support.access import a_client, command, given_access, with_token
from tests.support.factories import at_once, one, sql
from tests.support.project import Project


def test_text_of_a_key_is_stored_nowhere(engine: Engine) -> None:
    key = keys.add_key(engine, "robot", "service")
    assert re.fullmatch(r"catlog_[0-9a-f]{8}_[\w-]{43}", key)
    [stored] = sql(engine, "SELECT * FROM catlog.api_key")
    assert stored["hash"] == sha256(key.encode()).hexdigest()
    assert stored["prefix"] == key[:15]
    assert key[16:] not in str(stored)


def test_key_is_sent_as_bearer_token_or_in_its_own_header(engine: Engine) -> None:
    key = keys.add_key(engine, "robot", "service")
    client = a_client(given_access(engine))
    said = {"name": "key:robot", "role": "service", "address": "192.0.2.1"}
    assert client.get("/catalogs", headers=with_token(key)).json() == said
    assert client.get("/catalogs", headers={"X-API-Key": key}).json() == said
    basic = {"X-API-Key": key, "Authorization": "Basic YTpi"}
    assert client.get("/catalogs", headers=basic).json() == said


def test_altered_key_gives_no_access(engine: Engine) -> None:
    key = keys.add_key(engine, "robot", "service")
    client = a_client(given_access(engine))
    for other in (
        key[:-1],
        key + "A",
        key.upper(),
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        "catlog_00000000_" + key[16:],
        "catlog_",
        key[16:],
        sha256(key.encode()).hexdigest(),
        "catlog_" + "a" * 20_000,
        "catlog_' OR 1=1 --",
        "catlog_%00",
    ):
        for headers in (with_token(other), {"X-API-Key": other}):
            answer = client.get("/catalogs", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
            assert other not in answer.text
    assert one(engine, "SELECT last_used_at FROM catlog.api_key") is None


def test_revoked_or_expired_key_gives_no_access(engine: Engine) -> None:
    client = a_client(given_access(engine))
    given = {
        name: keys.add_key(engine, name, "service", seconds=seconds)
        for name, seconds in (("ever", None), ("day", 86400.0), ("robot", None))
    }
    assert {
        name: client.get("/catalogs", headers=with_token(key)).status_code
        for name, key in given.items()
    } == {"ever": 200, "day": 200, "robot": 200}
    keys.revoke_key(engine, "robot")
    sql(engine, "UPDATE catlog.api_key SET expires_at = clock_timestamp() WHERE name = 'day'")
    assert {
        name: client.get("/catalogs", headers=with_token(key)).status_code
        for name, key in given.items()
    } == {"ever": 200, "day": 401, "robot": 401}
    assert {key["name"]: key["state"] for key in keys.keys(engine)} == {
        "ever": "valid",
        "day": "expired",
        "robot": "revoked",
    }
    with pytest.raises(NotPossible, match="there is, or was"):
        keys.add_key(engine, "robot", "admin")
    with pytest.raises(NotFound, match="no key nobody"):
        keys.revoke_key(engine, "nobody")


def test_expiry_of_a_key_must_be_a_time_within_ten_years(engine: Engine) -> None:
    for seconds in (0.0, -1.0, 1e12, float("inf"), float("nan")):
        with pytest.raises(NotPossible, match="ten years"):
            keys.add_key(engine, "robot", "service", seconds=seconds)


def test_last_use_of_a_key_is_stored_once_a_minute_without_waiting(engine: Engine) -> None:
    key = keys.add_key(engine, "robot", "service")
    assert keys.use_key(engine, key)
    first = one(engine, "SELECT last_used_at FROM catlog.api_key")
    assert first
    at_once(*[lambda: keys.use_key(engine, key)] * 4)
    assert one(engine, "SELECT last_used_at FROM catlog.api_key") == first
    sql(engine, "UPDATE catlog.api_key SET last_used_at = last_used_at - interval '61 s'")
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1 FROM catlog.api_key FOR UPDATE")
        assert keys.use_key(engine, key)
    assert keys.use_key(engine, key)
    assert one(engine, "SELECT last_used_at FROM catlog.api_key") >= first


def test_key_has_permissions_that_its_scopes_and_its_role_allow(engine: Engine) -> None:
    client = a_client(given_access(engine))
    for number, (scopes, *statuses) in enumerate(
        (
            (None, 200, 201),
            ([], 403, 403),
            (["catalogs:read"], 200, 403),
            (["catalogs:create"], 403, 201),
            (["schedules:read"], 403, 403),
            (["*:*"], 200, 201),  # as wide as its role, no wider
        )
    ):
        key = keys.add_key(engine, f"robot{number}", "service", scopes=scopes)
        reading = client.get("/catalogs", headers=with_token(key))
        changing = client.post("/catalogs/a", headers=with_token(key))
        assert [reading.status_code, changing.status_code] == statuses, scopes
        if changing.status_code == 403:
            assert changing.json()["detail"] == "This key lacks the permission catalogs:create."


def test_keys_lose_the_permissions_that_their_role_loses(engine: Engine) -> None:
    key = keys.add_key(engine, "robot", "service", scopes=["catalogs:create", "catalogs:read"])
    narrower = {**DEFAULT_ROLES, "service": frozenset({"catalogs:read"})}
    client = a_client(given_access(engine, narrower))
    assert client.get("/catalogs", headers=with_token(key)).status_code == 200
    answer = client.post("/catalogs/a", headers=with_token(key))
    assert answer.json()["detail"] == "The role service lacks the permission catalogs:create."
    nothing = a_client(given_access(engine, {}))
    assert nothing.get("/catalogs", headers=with_token(key)).status_code == 403


def test_permissions_with_wildcards() -> None:
    internal = DEFAULT_ROLES["internal"]
    assert covers(internal, "audit:read")
    assert covers(internal, "catalogs:*")
    assert not covers(internal, "attempts:execute")
    assert not covers(internal, "*:*")
    assert not covers(internal, "providers:*")
    assert not covers(["catalogs:read"], "catalogs:rea")
    assert intersect(["*:read", "catalogs:*"], ["*:*"]) == {"*:read", "catalogs:*"}
    assert intersect(["*:read"], ["catalogs:*", "schedules:change"]) == {"catalogs:read"}
    assert intersect(["a:b"], []) == frozenset()


def test_key_command_adds_lists_and_revokes_keys(
    engine: Engine, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["add", "robot", "--role", "internal", "--scope", "catalogs:*", "--scope", "audit:read"]
    command("key", database_url, *given, "--expires", "90d")
    out, err = capsys.readouterr()
    key = out.removesuffix("\n")
    found = keys.use_key(engine, key)
    assert found
    assert found.scopes == ["audit:read", "catalogs:*"]
    assert "not shown again" in err
    assert key not in err
    days = one(engine, "SELECT extract(day FROM expires_at - created_at) FROM catlog.api_key")
    assert days == 90
    command("key", database_url, "list")
    said = capsys.readouterr().out
    assert key[:15] in said
    assert key[16:] not in said
    assert "valid" in said
    command("key", database_url, "revoke", "robot")
    assert keys.use_key(engine, key) is None
    audit = sql(engine, "SELECT actor, action, target, detail FROM catlog.audit ORDER BY id")
    assert [row["action"] for row in audit] == ["keys:add", "keys:revoke"]
    assert {(row["actor"], row["target"]) for row in audit} == {("command line", "key:robot")}
    assert key[16:] not in str(audit)


def test_key_command_reports_wrong_arguments(
    engine: Engine, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ("add robot", "needs --role"),
        ("add ro/bot --role service", "is not a valid name"),
        ("add robot --role service --scope catalogs", "is not a RESOURCE:ACTION"),
        ("add robot --role service --scope a:b:c", "is not a RESOURCE:ACTION"),
        ("add robot --role service --scope catalogs:*", "does not have"),
        ("add robot --role service --scope *:*", "does not have"),
        ("add robot --role user --scope catalogs:read", "does not have"),
        ("add robot --role service --expires soon", "is not a valid duration"),
        ("add robot --role service --expires 99999999d", "ten years"),
        ("revoke robot", "no key robot"),
        ("revoke robot --role service", "only add"),
        ("list robot", "write list"),
        ("", "write list"),
    ):
        with pytest.raises(SystemExit) as exit_:
            command("key", database_url, *arguments.split())
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert said in err
        assert out == ""
    assert keys.keys(engine) == []


def test_scope_of_a_key_must_be_a_permission_of_its_role(
    engine: Engine, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "resources.toml"
    file.write_text(
        """[resources.prices]
        view = "fuel_prices"
        key = "id"
        read = ["service"]
        [roles]
        service = ["attempts:*"]
        """
    )
    given = ("add", "robot", "--role", "service", "--scope")
    command("key", database_url, *given, "prices:read", resources=str(file))
    with pytest.raises(SystemExit):
        command("key", database_url, *given, "catalogs:read", resources=str(file))
    assert "does not have catalogs:read" in capsys.readouterr().err


def test_key_command_prints_only_the_key_to_stdout(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    process = Project(tmp_path, database_url).start("key", "add", "robot", "--role", "service")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert keys.use_key(engine, out.removesuffix("\n"))
