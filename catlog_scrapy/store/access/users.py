"""Users of the server."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.models.access import ROLES
from catlog_scrapy.store.sql import Condition, Database, row, rows, run

# Django's rule for user names.
NAME_PATTERN = re.compile(r"[\w.@+-]{1,150}")


USER_COLUMNS = "id, name, role, password_hash, enabled"


@dataclass(frozen=True)
class StoredUser:
    """A user as stored, enabled or disabled."""

    id: UUID
    name: str
    role: str
    password_hash: str = field(repr=False)
    enabled: bool


def add_user(database: Database, name: str, role: str, password_hash: str) -> UUID:
    """Add a user and return the id.

    Raises NotPossible for an invalid or used name. The names of removed users stay reserved: the
    audit log, attempts and stored responses refer to users by name.
    """
    check_name(name)
    check_role(role)
    with database.begin() as connection:
        if row(
            connection,
            """SELECT 1 FROM catlog.audit WHERE actor = :actor AND NOT EXISTS (
                   SELECT 1 FROM catlog.api_user WHERE name = :name) LIMIT 1""",
            actor=f"user:{name}",
            name=name,
        ):
            raise NotPossible(
                f"there was a user {name}, whose name the audit log still uses; use another name."
            )
        made = row(
            connection,
            """INSERT INTO catlog.api_user (name, role, password_hash)
               VALUES (:name, :role, :password_hash) ON CONFLICT (name) DO NOTHING RETURNING id""",
            name=name,
            role=role,
            password_hash=password_hash,
        )
    if made is None:
        raise NotPossible(f"there is a user {name} already; use another name.")
    id_: UUID = made["id"]
    return id_


def users(engine: Engine) -> list[Mapping[str, Any]]:
    """Return all users by name: name, role, enabled, created_at."""
    with engine.connect() as connection:
        return rows(
            connection, "SELECT name, role, enabled, created_at FROM catlog.api_user ORDER BY name"
        )


def find_user(engine: Engine, name: str) -> StoredUser | None:
    """Return the user with this name, or None."""
    with engine.connect() as connection:
        found = row(
            connection, f"SELECT {USER_COLUMNS} FROM catlog.api_user WHERE name = :name", name=name
        )
    return StoredUser(**found) if found else None


def enabled_user(engine: Engine, id_: UUID) -> StoredUser | None:
    """Return the enabled user with this id, or None."""
    with engine.connect() as connection:
        found = row(
            connection,
            f"SELECT {USER_COLUMNS} FROM catlog.api_user WHERE id = :id AND enabled",
            id=id_,
        )
    return StoredUser(**found) if found else None


def user_proof(user: StoredUser) -> Condition:
    """Return the condition that *user* is enabled and has the same name and role."""
    return Condition(
        """EXISTS (SELECT FROM catlog.api_user WHERE id = :proof_id AND enabled
               AND name = :proof_name AND role = :proof_role)""",
        {"proof_id": user.id, "proof_name": user.name, "proof_role": user.role},
    )


def set_password(database: Database, name: str, password_hash: str) -> None:
    """Set a password and revoke the user's tokens. Raises NotFound."""
    with database.begin() as connection:
        id_ = _change(connection, name, "password_hash = :value", password_hash)
        _log_out(connection, id_)


def set_role(database: Database, name: str, role: str) -> None:
    """Set a role, which applies from the next request on. Raises NotFound, NotPossible."""
    check_role(role)
    with database.begin() as connection:
        _change(connection, name, "role = :value", role)


def disable_user(database: Database, name: str) -> None:
    """Disable a user and revoke the user's tokens. Raises NotFound."""
    with database.begin() as connection:
        _log_out(connection, _change(connection, name, "enabled = :value", False))


def enable_user(database: Database, name: str) -> None:
    """Enable a user. Raises NotFound."""
    with database.begin() as connection:
        _change(connection, name, "enabled = :value", True)


def remove_user(database: Database, name: str) -> None:
    """Delete a user and the user's tokens; the audit log keeps the name. Raises NotFound."""
    with database.begin() as connection:
        if not run(connection, "DELETE FROM catlog.api_user WHERE name = :name", name=name):
            raise _unknown(name)


def _change(connection: Connection, name: str, change: str, value: object) -> UUID:
    user = row(
        connection,
        f"UPDATE catlog.api_user SET {change} WHERE name = :name RETURNING id",
        name=name,
        value=value,
    )
    if user is None:
        raise _unknown(name)
    id_: UUID = user["id"]
    return id_


def _log_out(connection: Connection, user_id: UUID) -> None:
    run(
        connection,
        """UPDATE catlog.refresh_token SET revoked_at = clock_timestamp()
           WHERE user_id = :user AND revoked_at IS NULL""",
        user=user_id,
    )


def _unknown(name: str) -> NotFound:
    return NotFound(f"no user {name}; scrapy user list names them.")


def check_name(name: str) -> None:
    """Check the name of a user or key. Raises NotPossible."""
    if not NAME_PATTERN.fullmatch(name):
        raise NotPossible(
            f"{name[:200]!r} is not a valid name; use 1 to 150 letters, digits and @ . + - _ only."
        )


def check_role(role: str) -> None:
    """Check the name of a role. Raises NotPossible."""
    if role not in ROLES:
        raise NotPossible(f"{role!r} is not a valid role; use one of {', '.join(ROLES)}.")
