"""Users: names, passwords, states, and the user command."""

import io
from types import SimpleNamespace

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine

from catlog_scrapy.api.auth.passwords import (
    MAX_CONCURRENT_HASHES,
    MAX_WAITING_LOGINS,
    Passwords,
    TooManyLogins,
)
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.access import users
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.sql import transaction
from tests.support.access import COST, PASSWORD, CountingHasher, command, given_a_user
from tests.support.factories import one, sql


def test_invalid_user_name_is_refused(engine: Engine) -> None:
    nul_and_others = ("a\0b", "a\n", "\ud800", "a/b", "<b>", "a:b")
    for name in ("", "a b", "a" * 151, "a" * 10**6, *nul_and_others):
        with pytest.raises(NotPossible, match="is not a valid name"):
            users.add_user(engine, name, "user", "hash")


def test_user_name_is_unique_and_case_sensitive(engine: Engine) -> None:
    for name in ("alice", "Alice", "алиса", "a.b+c@example.com", "a" * 150):
        given_a_user(engine, name)
    with pytest.raises(NotPossible, match="already"):
        given_a_user(engine, "alice")
    assert len(users.users(engine)) == 5
    assert users.find_user(engine, "ALICE") is None


def test_name_of_a_removed_user_in_the_audit_log_is_reserved(engine: Engine) -> None:
    """Attempts and stored responses refer to users by name; an unused name is free again."""
    given_a_user(engine)
    users.remove_user(engine, "alice")
    given_a_user(engine)
    with transaction(engine) as tx:
        record_audit(tx, actor="user:alice", action="catalogs:create", target="catalog 1")
    with pytest.raises(NotPossible, match="a user alice already"):
        given_a_user(engine)
    users.remove_user(engine, "alice")
    with pytest.raises(NotPossible, match="there was a user alice"):
        given_a_user(engine)
    given_a_user(engine, "bob")


def test_unknown_role_is_refused(engine: Engine) -> None:
    given_a_user(engine)
    with pytest.raises(NotPossible, match="admin, internal, service, user"):
        users.set_role(engine, "alice", "root")
    with pytest.raises(NotPossible):
        users.add_user(engine, "bob", "", "hash")


def test_change_of_an_unknown_user_is_refused(engine: Engine) -> None:
    for change in (users.disable_user, users.enable_user, users.remove_user):
        with pytest.raises(NotFound, match="no user bob"):
            change(engine, "bob")
    with pytest.raises(NotFound):
        users.set_password(engine, "bob", "hash")
    with pytest.raises(NotFound):
        users.set_role(engine, "bob", "user")


@pytest.mark.parametrize(
    "password", ["", "1234567", "a" * 1025, "я" * 513, "a" * 10**6, "12345678\0", "12345678\ud800"]
)
def test_invalid_password_is_never_hashed(password: str) -> None:
    hasher = CountingHasher()
    passwords = Passwords(hasher)
    before = hasher.longest
    with pytest.raises(NotPossible, match="password"):
        passwords.hash(password)
    assert hasher.longest == before


def test_password_matches_only_its_own_hash() -> None:
    passwords = Passwords(PasswordHasher(**COST))
    mine, same = passwords.hash(PASSWORD), passwords.hash(PASSWORD)
    assert mine.startswith("$argon2id$")
    assert mine != same
    assert passwords.match(PASSWORD, mine)
    assert passwords.match(PASSWORD, same)
    assert not passwords.match(PASSWORD + " ", mine)
    assert not passwords.match(PASSWORD, None)
    assert not passwords.match(PASSWORD, "no hash at all")


def test_outdated_password_hash_is_renewed() -> None:
    former = PasswordHasher(**COST).hash(PASSWORD)
    passwords = Passwords(PasswordHasher(**{**COST, "time_cost": 2}))
    renewed = passwords.rehash_if_outdated(PASSWORD, former)
    assert "t=2" in renewed
    assert passwords.rehash_if_outdated(PASSWORD, renewed) == renewed


def test_concurrent_and_waiting_password_hashes_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catlog_scrapy.api.auth.passwords.HASH_WAIT_S", 0.01)
    passwords = Passwords(PasswordHasher(**COST))
    turns = [passwords.slot() for _ in range(MAX_CONCURRENT_HASHES)]
    for turn in turns:
        turn.__enter__()
    with pytest.raises(TooManyLogins), passwords.slot():
        pass
    for turn in turns:
        turn.__exit__(None, None, None)
    for _ in range(3 * (MAX_CONCURRENT_HASHES + MAX_WAITING_LOGINS)):
        with passwords.slot():
            pass


def type_in(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    stdin = SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(text))
    monkeypatch.setattr("sys.stdin", stdin)


def said_by(capsys: pytest.CaptureFixture[str], database_url: str, *arguments: str) -> str:
    """Return the error of the user command for *arguments*."""
    with pytest.raises(SystemExit) as exit_:
        command("user", database_url, *arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_user_command_makes_every_change_of_a_user(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    type_in(monkeypatch, b"battery staple\nanother line\n")
    command("user", database_url, "add", "alice", "--role", "user")
    first = one(engine, "SELECT password_hash FROM catlog.api_user")
    assert PasswordHasher().verify(first, "battery staple")
    type_in(monkeypatch, "пароль с пробелом ".encode() + b"\r\n")
    command("user", database_url, "password", "alice")
    second = one(engine, "SELECT password_hash FROM catlog.api_user")
    assert PasswordHasher().verify(second, "пароль с пробелом ")
    command("user", database_url, "role", "alice", "--role", "internal")
    command("user", database_url, "disable", "alice")
    command("user", database_url, "list")
    assert "disabled" in (said := capsys.readouterr().out)
    assert "internal" in said
    command("user", database_url, "enable", "alice")
    command("user", database_url, "remove", "alice")
    assert users.users(engine) == []
    audit = sql(engine, "SELECT actor, action, target, detail FROM catlog.audit ORDER BY id")
    assert [row["action"].removeprefix("users:") for row in audit] == [
        "add",
        "password",
        "role",
        "disable",
        "enable",
        "remove",
    ]
    assert {(row["actor"], row["target"]) for row in audit} == {("command line", "user:alice")}
    assert audit[2]["detail"] == {"role": "internal"}
    assert "staple" not in str(audit)
    assert "argon2" not in str(audit)


def test_user_command_reports_wrong_arguments_and_changes_nothing(
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine = b"battery staple\n"
    for arguments, typed, said in (
        ("add alice --role user", b"short\n", "8 characters"),
        ("add alice --role user", b"", "8 characters"),
        ("add alice --role user", b"\xff" * 9, "not valid UTF-8"),
        ("add alice --role user", b"a" * 5000, "1024 bytes"),
        ("add alice", fine, "use --role ROLE with add"),
        ("add a/b --role user", fine, "is not a valid name"),
        ("password bob", fine, "no user bob"),
        ("password bob --role user", fine, "and only there"),
        ("enable", b"", "with a NAME"),
        ("forget bob", b"", "with a NAME"),
        ("", b"", "write list"),
    ):
        type_in(monkeypatch, typed)
        assert said in said_by(capsys, database_url, *arguments.split())
    assert users.users(engine) == []
    assert sql(engine, "SELECT 1 FROM catlog.audit") == []


def test_user_command_asks_twice_for_a_password_on_a_terminal(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    typed = iter(["battery staple", "battery stable", "battery staple", "battery staple"])
    monkeypatch.setattr("catlog_scrapy.commands.user.getpass", lambda _: next(typed))
    with pytest.raises(SystemExit):
        command("user", database_url, "add", "alice", "--role", "user")
    assert users.users(engine) == []
    command("user", database_url, "add", "alice", "--role", "user")
    assert [user["name"] for user in users.users(engine)] == ["alice"]
