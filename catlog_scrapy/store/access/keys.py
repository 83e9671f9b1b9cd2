"""API keys, for services. The key itself is nowhere but with its holder."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from secrets import token_hex, token_urlsafe
from typing import Any

import orjson
from sqlalchemy import Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.access.users import check_name, check_role
from catlog_scrapy.store.sql import Database, row, rows, run

# What tells a key from other credentials, and where it was found by those who look for leaks.
KEY_PREFIX = "catlog_"
KEY_PATTERN = re.compile(KEY_PREFIX + r"[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
MAX_KEY_LIFETIME_S = 3653 * 86400.0


def add_key(
    database: Database,
    name: str,
    role: str,
    *,
    scopes: Sequence[str] | None = None,
    seconds: float | None = None,
) -> str:
    """A new key, which is shown this once.

    *scopes* are the permissions of the role that it has, all by default; *seconds*, how long it
    counts. Raises NotPossible.
    """
    check_name(name)
    check_role(role)
    if seconds is not None and not 0 < seconds <= MAX_KEY_LIFETIME_S:
        raise NotPossible("a key expires within ten years, or never.")
    prefix = KEY_PREFIX + token_hex(4)
    key = f"{prefix}_{token_urlsafe(32)}"
    with database.begin() as connection:
        made = run(
            connection,
            """INSERT INTO catlog.api_key (name, role, scopes, prefix, hash, expires_at)
               VALUES (:name, :role, CAST(:scopes AS jsonb), :prefix, :hash,
                       clock_timestamp() + make_interval(secs => :seconds))
               ON CONFLICT (name) DO NOTHING""",
            name=name,
            role=role,
            scopes=None if scopes is None else orjson.dumps(sorted(set(scopes))).decode(),
            prefix=prefix,
            hash=_hash(key),
            seconds=seconds,
        )
    if not made:
        raise NotPossible(f"there is, or was, a key {name}; take another name.")
    return key


def use_key(engine: Engine, key: str) -> Mapping[str, Any] | None:
    """Name, role and scopes of a key that counts; notes, to the minute, that it was used."""
    if not KEY_PATTERN.fullmatch(key):
        return None
    with engine.connect() as connection:
        found = row(
            connection,
            """SELECT id, name, role, scopes, coalesce(
                   last_used_at < clock_timestamp() - interval '1 minute', true) AS to_note
               FROM catlog.api_key WHERE hash = :hash AND revoked_at IS NULL
                 AND coalesce(expires_at > clock_timestamp(), true)""",
            hash=_hash(key),
        )
        if found and found["to_note"]:
            run(
                connection,
                """UPDATE catlog.api_key SET last_used_at = clock_timestamp()
                   WHERE id = (SELECT id FROM catlog.api_key
                               WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)""",
                id=found["id"],
            )
            connection.commit()
    return found


def keys(engine: Engine) -> list[Mapping[str, Any]]:
    """All keys by name: name, prefix, role, scopes, last_used_at, expires_at, state."""
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT name, prefix, role, scopes, last_used_at, expires_at,
                   CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                        WHEN expires_at <= clock_timestamp() THEN 'expired'
                        ELSE 'valid' END AS state
               FROM catlog.api_key ORDER BY name""",
        )


def revoke_key(database: Database, name: str) -> None:
    """It does not count any more. Raises NotFound."""
    with database.begin() as connection:
        if not run(
            connection,
            """UPDATE catlog.api_key SET revoked_at = coalesce(revoked_at, clock_timestamp())
               WHERE name = :name""",
            name=name,
        ):
            raise NotFound(f"no key {name}; scrapy key list names them.")


def _hash(key: str) -> str:
    # No salt and no argon2: nobody guesses 256 random bits, and each request looks it up.
    return sha256(key.encode()).hexdigest()
