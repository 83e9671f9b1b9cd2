"""API keys for services. Only a hash of the key is stored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex, token_urlsafe
from typing import Any

import orjson
from sqlalchemy import Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.access.users import check_name, check_role
from catlog_scrapy.store.sql import Condition, Database, row, rows, run

# Tells keys from other credentials, and lets secret scanners recognise a leaked key.
KEY_PREFIX = "catlog_"
KEY_PATTERN = re.compile(KEY_PREFIX + r"[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
MAX_KEY_LIFETIME_S = 3653 * 86400.0


@dataclass(frozen=True)
class ValidKey:
    """A key that is neither revoked nor expired; `scopes` is None for all of its role."""

    name: str
    role: str
    scopes: list[str] | None


def add_key(
    database: Database,
    name: str,
    role: str,
    *,
    scopes: Sequence[str] | None = None,
    seconds: float | None = None,
) -> str:
    """Add a key and return its text, which is not stored.

    *scopes* are the permissions of the role that the key has, by default all of them. The key
    expires after *seconds*, by default never. Raises NotPossible.
    """
    check_name(name)
    check_role(role)
    if seconds is not None and not 0 < seconds <= MAX_KEY_LIFETIME_S:
        raise NotPossible("a key expires within ten years or never; use a shorter time.")
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
        raise NotPossible(f"there is, or was, a key {name}; use another name.")
    return key


def use_key(engine: Engine, key: str) -> ValidKey | None:
    """Return a valid key, or None, and store the time of use to the minute."""
    if not KEY_PATTERN.fullmatch(key):
        return None
    with engine.connect() as connection:
        found = row(
            connection,
            """SELECT id, name, role, scopes, coalesce(
                   last_used_at < clock_timestamp() - interval '1 minute', true) AS is_stale
               FROM catlog.api_key WHERE hash = :hash AND revoked_at IS NULL
                 AND coalesce(expires_at > clock_timestamp(), true)""",
            hash=_hash(key),
        )
        if found and found["is_stale"]:
            run(
                connection,
                """UPDATE catlog.api_key SET last_used_at = clock_timestamp()
                   WHERE id = (SELECT id FROM catlog.api_key
                               WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED)""",
                id=found["id"],
            )
            connection.commit()
    return ValidKey(found["name"], found["role"], found["scopes"]) if found else None


def key_proof(key: str, found: ValidKey) -> Condition:
    """Return the condition that *key* is still as *found*, and was used within the last minute."""
    return Condition(
        """EXISTS (SELECT FROM catlog.api_key WHERE hash = :proof_hash AND revoked_at IS NULL
               AND coalesce(expires_at > clock_timestamp(), true) AND role = :proof_role
               AND scopes IS NOT DISTINCT FROM CAST(:proof_scopes AS jsonb)
               AND last_used_at > clock_timestamp() - interval '1 minute')""",
        {
            "proof_hash": _hash(key),
            "proof_role": found.role,
            "proof_scopes": None if found.scopes is None else orjson.dumps(found.scopes).decode(),
        },
    )


def keys(engine: Engine) -> list[Mapping[str, Any]]:
    """Return all keys by name: name, prefix, role, scopes, last_used_at, expires_at, state."""
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
    """Revoke a key. Raises NotFound."""
    with database.begin() as connection:
        if not run(
            connection,
            """UPDATE catlog.api_key SET revoked_at = coalesce(revoked_at, clock_timestamp())
               WHERE name = :name""",
            name=name,
        ):
            raise NotFound(f"no key {name}; scrapy key list names them.")


def _hash(key: str) -> str:
    # A plain hash, without salt or argon2: 256 random bits cannot be guessed, and every request
    # looks up the hash.
    return sha256(key.encode()).hexdigest()
