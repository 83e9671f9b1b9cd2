"""Log-ins and tokens, also forged, expired and guessed."""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import jwt
import pytest
from argon2 import PasswordHasher
from pydantic import ValidationError
from sqlalchemy import Engine, event

from catlog_scrapy.api.auth.passwords import Passwords
from catlog_scrapy.api.auth.tokens import Credentials
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.store.access import users
from catlog_scrapy.store.access.logins import (
    FREE_FAILURES,
    begin_login,
    record_login,
    wait_after_failures,
)
from catlog_scrapy.store.access.tokens import signing_key
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.store.maintenance.prune_counting import count_prunable
from tests.support.access import (
    COST,
    PASSWORD,
    CountingHasher,
    a_client,
    given_a_user,
    given_access,
    log_in,
    with_token,
)
from tests.support.factories import at_once, one, sql
from tests.support.waiting import until


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def refreshed(client: Any, refresh: str) -> Any:
    return client.post("/api/v1/token/refresh", json={"refresh": refresh})


def audit(engine: Engine) -> list[tuple[str, str]]:
    found = sql(engine, "SELECT actor, action FROM catlog.audit ORDER BY id")
    return [(row["actor"], row["action"]) for row in found]


def a_minute_passes(engine: Engine) -> None:
    """Move the replacement of every token a minute back."""
    sql(engine, "UPDATE catlog.refresh_token SET replaced_at = replaced_at - interval '1 minute'")


@pytest.fixture
def client(engine: Engine) -> Any:
    """Return a client of a server with the internal user alice."""
    given_a_user(engine)
    return a_client(given_access(engine))


def test_log_in_gives_access(engine: Engine, client: Any) -> None:
    answer = log_in(client)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json()) == {"access", "refresh"}
    claims = claims_of(answer.json()["access"])
    assert set(claims) == {"iss", "sub", "name", "role", "typ", "jti", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == pytest.approx(300, abs=1)
    assert (claims["typ"], claims["name"], claims["role"]) == ("access", "alice", "internal")
    seen = client.get("/catalogs", headers=with_token(answer.json()["access"]))
    assert seen.json() == {"name": "user:alice", "role": "internal", "address": "192.0.2.1"}
    assert audit(engine) == [("user:alice", "tokens:create")]


def test_request_without_credentials_gives_401(client: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer  "}):
        answer = client.get("/catalogs", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="catlog"'
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_role_is_limited_to_its_permissions(engine: Engine) -> None:
    client = a_client(given_access(engine))
    statuses = {}
    for role in ("admin", "internal", "service", "user"):
        given_a_user(engine, role, role)
        token = with_token(log_in(client, role).json()["access"])
        reading, changing = (
            client.get("/catalogs", headers=token),
            client.post("/catalogs/a", headers=token),
        )
        statuses[role] = (reading.status_code, changing.status_code)
    assert statuses == {
        "admin": (200, 201),
        "internal": (200, 201),
        "service": (200, 201),
        "user": (403, 403),
    }
    assert changing.json()["detail"] == "The role user lacks the permission catalogs:create."


def forgeries(engine: Engine, pair: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield forged tokens, made from a valid pair of tokens or from nothing."""
    good = pair["access"]
    header, payload, signature = good.split(".")
    claims, key = claims_of(good), signing_key(engine)
    raised = {**claims, "role": "admin", "sub": str(uuid4())}
    yield "no signature", f"{header}.{payload}."
    yield "two parts", f"{header}.{payload}"
    yield "four parts", f"{good}.{signature}"
    yield "other claims", f"{header}.{encoded(raised)}.{signature}"
    for place in (0, 5, len(signature) // 2, -1):
        letters = list(signature)
        letters[place] = "A" if letters[place] != "A" else "B"
        yield f"letter {place} of the signature", f"{header}.{payload}.{''.join(letters)}"
    # Base64 has spellings that mean the same bytes.
    yield "padding", f"{good}="
    yield "a sign that decoders skip", f"{header}.{payload}.{signature[:9]}!{signature[9:]}"
    yield "bits that mean nothing", good[:-1] + chr(ord(good[-1]) + 1)
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        head = encoded({"alg": algorithm, "typ": "JWT"})
        yield f"alg {algorithm!r}", f"{head}.{payload}."
        yield f"alg {algorithm!r}, signed", f"{head}.{payload}.{signature}"
    for algorithm, digest in (("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
        signed = f"{encoded({'alg': algorithm})}.{payload}"
        mac = hmac.new(key, signed.encode(), digest).digest()
        yield algorithm, f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    for other in (b"\0" * 32, b"catlog" * 6, key[::-1]):
        yield "another key", jwt.encode(claims, other, algorithm="HS256")
    yield "a refresh token", pair["refresh"]

    def signed(**changes: Any) -> str:
        changed = {name: of for name, of in {**claims, **changes}.items() if of is not None}
        return jwt.encode(changed, key, algorithm="HS256")

    assert signed() == good
    for claim in ("iss", "sub", "typ", "jti", "iat", "exp"):
        yield f"no {claim}", signed(**{claim: None})
    yield "expired", signed(exp=int(time.time()) - 1)
    yield "another issuer", signed(iss="elsewhere")
    yield "another typ", signed(typ="Access")
    yield "nobody's", signed(sub=str(uuid4()))
    yield "no id", signed(sub="1' OR '1'='1")
    yield "no jti", signed(jti="1")
    yield "not yet", signed(nbf=int(time.time()) + 60)
    yield (
        "a deep header",
        f"{base64.urlsafe_b64encode(b'[' * 140).decode().rstrip('=')}.e30.{signature}",
    )
    yield "too long", f"{header}.{'e' * 60_000}.{signature}"
    yield "nothing", "."
    yield "dots", ".."
    yield "words", "null"


def test_forged_tokens_give_no_access(engine: Engine, client: Any) -> None:
    pair = log_in(client).json()
    told = {
        what: client.get("/catalogs", headers=with_token(token)).status_code
        for what, token in forgeries(engine, pair)
    }
    assert set(told.values()) == {401}, told
    assert client.get("/catalogs", headers=with_token(pair["access"])).status_code == 200


def test_forged_refresh_tokens_are_refused(engine: Engine, client: Any) -> None:
    pair = log_in(client).json()
    swapped = {"access": pair["refresh"], "refresh": pair["access"]}
    for what, token in forgeries(engine, swapped):
        if what not in ("nobody's", "expired", "too long"):
            assert refreshed(client, token).status_code == 401, what
            answer = client.post("/api/v1/token/revoke", json={"refresh": token})
            assert answer.status_code == 401, what
    assert refreshed(client, pair["refresh"]).status_code == 200


def test_role_claim_of_a_token_is_ignored(engine: Engine, client: Any) -> None:
    given_a_user(engine, "bob", "user")
    token = log_in(client, "bob").json()["access"]
    key = signing_key(engine)
    boasting = jwt.encode({**claims_of(token), "role": "admin", "name": "alice"}, key)
    assert client.get("/catalogs", headers=with_token(boasting)).status_code == 403


def test_changes_of_a_user_apply_to_the_next_request(engine: Engine, client: Any) -> None:
    pair = log_in(client).json()
    token = with_token(pair["access"])
    users.set_role(engine, "alice", "user")
    assert client.get("/catalogs", headers=token).status_code == 403
    users.set_role(engine, "alice", "admin")
    assert client.get("/catalogs", headers=token).json()["role"] == "admin"
    users.disable_user(engine, "alice")
    assert client.get("/catalogs", headers=token).status_code == 401
    assert refreshed(client, pair["refresh"]).status_code == 401
    assert log_in(client).status_code == 401
    users.enable_user(engine, "alice")
    assert client.get("/catalogs", headers=token).status_code == 200
    assert refreshed(client, pair["refresh"]).status_code == 401
    users.remove_user(engine, "alice")
    assert client.get("/catalogs", headers=token).status_code == 401
    sql(engine, "DELETE FROM catlog.audit")
    given_a_user(engine)
    assert client.get("/catalogs", headers=token).status_code == 401


def test_new_password_ends_all_refresh_tokens(engine: Engine, client: Any) -> None:
    pairs = [log_in(client).json() for _ in range(2)]
    users.set_password(engine, "alice", Passwords(CountingHasher()).hash("battery staple"))
    assert [refreshed(client, pair["refresh"]).status_code for pair in pairs] == [401, 401]
    assert log_in(client).status_code == 401
    assert log_in(client, password="battery staple").status_code == 200


def test_refresh_token_gives_the_next_pair(engine: Engine, client: Any) -> None:
    pair = log_in(client).json()
    for _ in range(3):
        answer = refreshed(client, pair["refresh"])
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["refresh"] != pair["refresh"]
        pair = answer.json()
        assert client.get("/catalogs", headers=with_token(pair["access"])).status_code == 200
    assert one(engine, "SELECT count(DISTINCT family) FROM catlog.refresh_token") == 1


def test_client_that_lost_a_refresh_response_may_repeat_the_request(
    engine: Engine, client: Any
) -> None:
    first = log_in(client).json()["refresh"]
    lost, second = (refreshed(client, first).json()["refresh"] for _ in range(2))
    assert lost != second
    assert refreshed(client, second).status_code == 200


def test_concurrent_refreshes_of_one_token_both_succeed(engine: Engine, client: Any) -> None:
    first = log_in(client).json()["refresh"]
    answers = at_once(*[lambda: refreshed(client, first)] * 4)
    assert [answer.status_code for answer in answers] == [200] * 4
    nexts = {answer.json()["refresh"] for answer in answers}
    assert len(nexts) == 4
    assert [refreshed(client, token).status_code for token in nexts] == [200] * 4


def test_late_reuse_of_a_replaced_token_revokes_its_family(engine: Engine, client: Any) -> None:
    other = log_in(client).json()["refresh"]
    stolen = log_in(client).json()["refresh"]
    mine = refreshed(client, stolen).json()["refresh"]
    a_minute_passes(engine)
    assert refreshed(client, stolen).status_code == 401
    assert refreshed(client, mine).status_code == 401
    assert refreshed(client, stolen).status_code == 401
    assert refreshed(client, other).status_code == 200
    assert audit(engine)[2:] == [("user:alice", "tokens:revoke")]


def test_revocation_during_a_refresh_leaves_no_valid_token(engine: Engine, client: Any) -> None:
    for _ in range(5):
        token = log_in(client).json()["refresh"]
        *answers, revoked = at_once(
            *[lambda token=token: refreshed(client, token)] * 3,
            lambda token=token: client.post("/api/v1/token/revoke", json={"refresh": token}),
        )
        assert revoked.status_code == 204
        for answer in answers:
            if answer.status_code == 200:
                assert refreshed(client, answer.json()["refresh"]).status_code == 401


def test_log_in_fails_if_the_password_changes_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_a_user(engine)
    access = given_access(engine)
    renewed = Passwords(CountingHasher()).hash("battery staple")
    match = access.passwords.match

    def slowly(password: str, hash_: str | None) -> bool:
        users.set_password(engine, "alice", renewed)
        return match(password, hash_)

    monkeypatch.setattr(access.passwords, "match", slowly)
    assert log_in(a_client(access)).status_code == 401
    assert sql(engine, "SELECT 1 FROM catlog.refresh_token") == []
    assert one(engine, "SELECT password_hash FROM catlog.api_user") == renewed


def test_log_out_ends_tokens_and_may_be_repeated(engine: Engine, client: Any) -> None:
    first = log_in(client).json()["refresh"]
    second = refreshed(client, first).json()["refresh"]
    for token in (first, second):
        assert client.post("/api/v1/token/revoke", json={"refresh": token}).status_code == 204
    assert refreshed(client, second).status_code == 401
    assert audit(engine) == [("user:alice", "tokens:create"), ("user:alice", "tokens:revoke")]


def test_tokens_expire(engine: Engine) -> None:
    given_a_user(engine)
    client = a_client(given_access(engine, access=0.2, refresh=0.2))
    pair = log_in(client).json()
    expired = max(claims_of(token)["exp"] for token in pair.values())
    until(lambda: time.time() > expired)
    assert client.get("/catalogs", headers=with_token(pair["access"])).status_code == 401
    answer = refreshed(client, pair["refresh"])
    assert (answer.status_code, answer.json()["detail"]) == (401, "The token has expired.")
    answer = client.post("/api/v1/token/revoke", json={"refresh": pair["refresh"]})
    assert answer.status_code == 204
    assert count_prunable(engine).access == 1
    assert prune(engine).access == 1
    assert sql(engine, "SELECT 1 FROM catlog.refresh_token") == []


def test_invalid_token_lifetime_is_refused(engine: Engine) -> None:
    for wrong in ("soon", 0, -1, float("nan"), float("inf"), None):
        with pytest.raises(ConfigurationError, match="CATLOG_API_ACCESS is"):
            given_access(engine, access=wrong)


def test_server_may_start_before_its_database(engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    given_a_user(engine)
    del statements[:]
    client = a_client(given_access(engine))
    assert statements == []
    token = with_token(log_in(client).json()["access"])
    del statements[:]
    for _ in range(3):
        assert client.get("/catalogs", headers=token).status_code == 200
    assert len(statements) == 3, statements


def test_malformed_log_in_is_refused_without_hashing(engine: Engine) -> None:
    access = given_access(engine)
    client = a_client(access)
    hasher = access.passwords.hasher
    assert isinstance(hasher, CountingHasher)
    for field, wrong in (
        *(("username", name) for name in ("", "a" * 151, "a" * 10**6, "a\0", 7, None, ["alice"])),
        *(("password", word) for word in ("", "a" * 1025, "я" * 513, "a" * 10**6, "a\0", {})),
    ):
        given = {"username": "alice", "password": PASSWORD, field: wrong}
        answer = client.post("/api/v1/token", json=given)
        assert answer.status_code == 422, wrong
        [error] = answer.json()["detail"]
        assert error["loc"] == ["body", field]
    for name in ("username", "password"):
        with pytest.raises(ValidationError, match=name):
            Credentials.model_validate_json(f'{{"{name}": "\\ud800"}}')
    assert hasher.verified == 0
    assert sql(engine, "SELECT 1 FROM catlog.login_failure") == []


def test_log_in_does_not_reveal_user_names(engine: Engine) -> None:
    given_a_user(engine)
    given_a_user(engine, "carol")
    users.disable_user(engine, "carol")
    access = given_access(engine)
    hasher = access.passwords.hasher
    assert isinstance(hasher, CountingHasher)
    client = a_client(access)
    answers = [
        log_in(client, "alice", "battery staple"),
        log_in(client, "nobody", "battery staple"),
        log_in(client, "carol"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1
    assert hasher.verified == 3
    assert audit(engine) == [
        ("user:alice", "tokens:refuse"),
        ("unknown user", "tokens:refuse"),
        ("user:carol", "tokens:refuse"),
    ]


def test_wait_grows_with_failed_log_ins(engine: Engine) -> None:
    waits = [wait_after_failures(failures) for failures in range(1, 16)]
    assert waits[:4] == [None] * 4
    assert waits[4:] == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]
    assert wait_after_failures(10**9) == 900
    for _ in range(FREE_FAILURES):
        assert begin_login(engine, "alice", "192.0.2.1") == 0
    assert 4 < begin_login(engine, "alice", "192.0.2.2") <= 5
    assert 4 < begin_login(engine, "bob", "192.0.2.1") <= 5
    assert begin_login(engine, "bob", "192.0.2.2") == 0
    sql(engine, "UPDATE catlog.login_failure SET blocked_until = now()")
    assert begin_login(engine, "alice", "192.0.2.3") == 0
    assert 9 < begin_login(engine, "alice", "192.0.2.3") <= 10
    sql(
        engine,
        """UPDATE catlog.login_failure SET blocked_until = now(),
               last_at = last_at - interval '61 minutes'""",
    )
    assert begin_login(engine, "alice", "192.0.2.1") == 0
    counted = one(engine, "SELECT failures FROM catlog.login_failure WHERE subject = 'user:alice'")
    assert counted == 1
    assert prune(engine).access == 3


def test_addresses_of_one_network_share_a_limit(engine: Engine) -> None:
    for number in range(FREE_FAILURES):
        assert begin_login(engine, f"user{number}", f"2001:db8::{number}:1") == 0
    assert begin_login(engine, "alice", "2001:db8::ffff") > 0
    assert begin_login(engine, "alice", "2001:db8:0:1::1") == 0
    assert begin_login(engine, "alice", "::ffff:192.0.2.1") == 0
    assert begin_login(engine, "alice", "") == 0
    subjects = sql(engine, "SELECT subject FROM catlog.login_failure WHERE subject LIKE 'address%'")
    assert {row["subject"] for row in subjects} == {
        "address:2001:db8::",
        "address:2001:db8:0:1::",
        "address:192.0.2.1",
        "address:",
    }


def test_own_log_in_does_not_clear_failures_of_other_accounts(engine: Engine) -> None:
    for _ in range(FREE_FAILURES - 1):
        assert begin_login(engine, "victim", "192.0.2.1") == 0
        assert begin_login(engine, "mine", "192.0.2.1") == 0
        record_login(engine, "mine", "192.0.2.1")
    assert begin_login(engine, "victim", "192.0.2.1") == 0
    assert begin_login(engine, "mine", "192.0.2.1") > 0


def test_concurrent_log_ins_of_one_user_are_counted(engine: Engine) -> None:
    def log_in_often(address: str) -> int:
        succeeded = 0
        for _ in range(200):
            if begin_login(engine, "alice", address) == 0:
                record_login(engine, "alice", address)
                succeeded += 1
        return succeeded

    with ThreadPoolExecutor(2) as threads:
        succeeded = list(threads.map(log_in_often, ["192.0.2.1", "192.0.2.2"]))
    assert succeeded == [200, 200]
    assert one(engine, "SELECT sum(failures) FROM catlog.login_failure") == 0


def test_correct_password_also_waits_after_failed_log_ins(engine: Engine) -> None:
    given_a_user(engine)
    access = given_access(engine)
    hasher = access.passwords.hasher
    assert isinstance(hasher, CountingHasher)
    client = a_client(access)
    for _ in range(FREE_FAILURES):
        assert log_in(client, password="battery staple").status_code == 401
    answer = log_in(client)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    assert hasher.verified == FREE_FAILURES
    assert len(audit(engine)) == FREE_FAILURES
    sql(engine, "UPDATE catlog.login_failure SET blocked_until = now()")
    assert log_in(client).status_code == 200
    assert log_in(client).status_code == 200
    left = sql(engine, "SELECT subject, failures FROM catlog.login_failure")
    assert left == [{"subject": "address:192.0.2.1", "failures": FREE_FAILURES}]


def test_concurrent_guesses_are_counted_one_by_one(engine: Engine) -> None:
    given_a_user(engine)
    clients = [a_client(given_access(engine), address=f"192.0.2.{n}") for n in range(12)]
    answers = at_once(
        *[lambda client=client: log_in(client, password="battery staple") for client in clients]
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [401] * FREE_FAILURES + [429] * (12 - FREE_FAILURES)


def test_log_in_renews_an_outdated_hash(engine: Engine, client: Any) -> None:
    sql(
        engine,
        "UPDATE catlog.api_user SET password_hash = :hash",
        hash=PasswordHasher(**{**COST, "time_cost": 2}).hash(PASSWORD),
    )
    assert log_in(client).status_code == 200
    assert "t=1" in one(engine, "SELECT password_hash FROM catlog.api_user")
    assert log_in(client).status_code == 200


def test_too_many_concurrent_log_ins_give_503(
    engine: Engine, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catlog_scrapy.api.auth.passwords.HASH_WAIT_S", 0.01)
    access = given_access(engine)
    busy = a_client(access)
    with access.passwords.slot(), access.passwords.slot():
        answer = log_in(busy)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert log_in(busy).status_code == 200


def test_secrets_are_neither_logged_nor_stored(
    engine: Engine, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pair = log_in(client).json()
    log_in(client, "my secret word", "my other word")
    refreshed(client, pair["refresh"])
    client.get("/catalogs", headers=with_token(pair["access"] + "x"))
    client.post("/api/v1/token/revoke", json={"refresh": pair["refresh"]})
    written = str(sql(engine, "SELECT * FROM catlog.audit")) + caplog.text
    for table in ("refresh_token", "api_user"):
        written += str(sql(engine, f"SELECT * FROM catlog.{table}"))
    for secret in (PASSWORD, "my secret word", "my other word", *pair.values()):
        assert secret not in written
    assert pair["access"].rpartition(".")[2] not in written


def test_openapi_document_describes_authentication(client: Any) -> None:
    document = client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert schemes["key"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": schemes["key"]["description"],
    }
    assert document["paths"]["/catalogs"]["get"]["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in document["paths"]["/api/v1/token"]["post"]
