"""Users, keys and tokens of the server, and the audit. Only hashes of secrets are stored."""

import datetime as dt
import uuid

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, CreatedAt, Instant, Json, UuidKey
from catlog_scrapy.models.catalog import one_of

ROLES = ("admin", "internal", "service", "user")


class ApiUser(Base):
    """A person with a password; `password_hash` is the encoded hash of argon2."""

    __tablename__ = "api_user"
    __table_args__ = (one_of("role", ROLES),)

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    password_hash: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[CreatedAt]


class RefreshToken(Base):
    """A refresh token of a user; `id` is its `jti`.

    A token is used once: then another token of its `family` replaces it. A replaced token that is
    used again revokes the family, because one of two holders has stolen it.
    """

    __tablename__ = "refresh_token"

    id: Mapped[UuidKey]
    family: Mapped[uuid.UUID] = mapped_column(index=True)
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.api_user.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[dt.datetime]
    replaced_at: Mapped[Instant | None]
    revoked_at: Mapped[Instant | None]


class ApiKey(Base):
    """A key of a service: `hash` is its SHA-256 in hexadecimal, `prefix` its beginning for people.

    `scopes` lists its permissions as `resource:action`; NULL is all permissions of its role.
    """

    __tablename__ = "api_key"
    __table_args__ = (one_of("role", ROLES),)

    id: Mapped[UuidKey]
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    scopes: Mapped[Json | None]
    prefix: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Instant | None]
    revoked_at: Mapped[Instant | None]
    last_used_at: Mapped[Instant | None]


class SigningKey(Base):
    """The key that signs the tokens of all servers: one row, inserted with the schema."""

    __tablename__ = "signing_key"
    __table_args__ = (CheckConstraint("id = 1", name="only"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]


class LoginFailure(Base):
    """Consecutive failed log-ins of a `subject`: `user:NAME` or `address:IP`."""

    __tablename__ = "login_failure"

    subject: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[dt.datetime]
    blocked_until: Mapped[Instant | None]


class Audit(Base):
    """A change that was made through the server by `actor`, `user:NAME` or `key:NAME`.

    `action` is the permission that the change needs, `target` the changed object, `detail` the
    change itself.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[CreatedAt] = mapped_column(index=True)
    actor: Mapped[str]
    role: Mapped[str]
    action: Mapped[str]
    target: Mapped[str]
    address: Mapped[str]
    detail: Mapped[Json] = mapped_column(server_default="{}")


class IdempotentRequest(Base):
    """The reply to a request with an Idempotency-Key, for repetitions of the request.

    `request` is a hash of method, path and body: another request with the same key is refused.
    """

    __tablename__ = "idempotent_request"

    actor: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    status: Mapped[int]
    body: Mapped[Json | None]
    headers: Mapped[Json] = mapped_column(server_default="{}")
    created_at: Mapped[CreatedAt] = mapped_column(index=True)
