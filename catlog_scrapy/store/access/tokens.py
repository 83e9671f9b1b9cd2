"""Refresh tokens: each token is used once and replaced by the next token of its family.

Every change of a user's tokens first locks the user's row. Otherwise a token that is issued while
its family is revoked would stay valid.
"""

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.access.users import USER_COLUMNS, StoredUser
from catlog_scrapy.store.sql import Database, one, row, run, scalar

# A replaced token stays usable for a moment: the client may have lost the response, or may have
# sent two requests at once.
REUSE_GRACE_S = 10.0


@dataclass(frozen=True)
class IssuedToken:
    """A stored refresh token and its user. `made_at` is a time of the database's clock."""

    id: UUID
    family: UUID
    user_id: UUID
    user: str
    role: str
    made_at: dt.datetime
    expires_at: dt.datetime


@dataclass(frozen=True)
class RevokedFamily:
    """A family of tokens that was revoked just now, with its user's name and role."""

    user: str
    role: str
    family: UUID


def signing_key(engine: Engine) -> bytes:
    """Return the key with which all servers on this database sign tokens."""
    with engine.connect() as connection:
        return bytes(scalar(connection, "SELECT value FROM catlog.signing_key"))


def issue_first_token(
    database: Database, user_id: UUID, *, verified: str, renewed: str, seconds: float
) -> IssuedToken | None:
    """Issue the first token of a new family, valid for *seconds*.

    *renewed* is stored as the password hash. Returns None if the user was disabled or the password
    hash is no longer *verified*.
    """
    with database.begin() as connection:
        user = row(
            connection,
            f"""UPDATE catlog.api_user SET password_hash = :renewed
                WHERE id = :id AND enabled AND password_hash = :verified
                RETURNING {USER_COLUMNS}""",
            id=user_id,
            verified=verified,
            renewed=renewed,
        )
        return _insert(connection, StoredUser(**user), None, seconds) if user else None


def replace_token(
    database: Database, id_: UUID, user_id: UUID, seconds: float
) -> IssuedToken | RevokedFamily | None:
    """Replace a token.

    Returns None for an invalid token. A token that was replaced too long ago may be stolen, so its
    family is revoked (RFC 9700, 4.14.2) and returned.
    """
    with database.begin() as connection:
        user = _lock(connection, user_id)
        token = row(
            connection,
            """SELECT family, replaced_at IS NOT NULL AS replaced, coalesce(
                   replaced_at < clock_timestamp() - make_interval(secs => :grace), false) AS late
               FROM catlog.refresh_token
               WHERE id = :id AND user_id = :user AND revoked_at IS NULL
                 AND expires_at > clock_timestamp()""",
            id=id_,
            user=user_id,
            grace=REUSE_GRACE_S,
        )
        if user is None or token is None or not user.enabled:
            return None
        if token["late"]:
            _revoke(connection, token["family"])
            return RevokedFamily(user.name, user.role, token["family"])
        if not token["replaced"]:
            run(
                connection,
                "UPDATE catlog.refresh_token SET replaced_at = clock_timestamp() WHERE id = :id",
                id=id_,
            )
        return _insert(connection, user, token["family"], seconds)


def revoke_family(database: Database, id_: UUID, user_id: UUID) -> RevokedFamily | None:
    """Revoke all tokens of a token's family; return None if the family had no valid token."""
    with database.begin() as connection:
        user = _lock(connection, user_id)
        token = row(
            connection,
            "SELECT family FROM catlog.refresh_token WHERE id = :id AND user_id = :user",
            id=id_,
            user=user_id,
        )
        if user is None or token is None or not _revoke(connection, token["family"]):
            return None
        return RevokedFamily(user.name, user.role, token["family"])


def _lock(connection: Connection, user_id: UUID) -> StoredUser | None:
    found = row(
        connection,
        f"SELECT {USER_COLUMNS} FROM catlog.api_user WHERE id = :id FOR NO KEY UPDATE",
        id=user_id,
    )
    return StoredUser(**found) if found else None


def _revoke(connection: Connection, family: UUID) -> int:
    return run(
        connection,
        """UPDATE catlog.refresh_token SET revoked_at = clock_timestamp()
           WHERE family = :family AND revoked_at IS NULL""",
        family=family,
    )


def _insert(
    connection: Connection, user: StoredUser, family: UUID | None, seconds: float
) -> IssuedToken:
    token = one(
        connection,
        """INSERT INTO catlog.refresh_token (family, user_id, created_at, expires_at)
           SELECT coalesce(:family, gen_random_uuid()), :user, now,
                  now + make_interval(secs => :seconds)
           FROM clock_timestamp() AS now
           RETURNING id, family, user_id, created_at AS made_at, expires_at""",
        family=family,
        user=user.id,
        seconds=seconds,
    )
    return IssuedToken(user=user.name, role=user.role, **token)
