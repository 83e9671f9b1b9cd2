"""JSON Web Tokens (RFC 7519): short-lived access tokens and long-lived refresh tokens."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from uuid import UUID, uuid4

import jwt
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.auth.unauthorized import (
    EXPIRED_TOKEN,
    FOREIGN_TOKEN,
    MALFORMED_TOKEN,
    WRONG_TOKEN_TYPE,
)
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.store.access.tokens import IssuedToken, signing_key

ISSUER = "catlog"
ALGORITHM = "HS256"
# Ten years; a credential for longer than this is an API key.
MAX_LIFETIME_S = 3653 * 86400
TokenType = Literal["access", "refresh"]
# The form of the server's own tokens. PyJWT parses the header before it verifies the signature; the
# limit keeps the header too short for deep nesting. The last character of a signature encodes four
# bits; the other two must be zero, so that each token has one form.
TOKEN_PATTERN = re.compile(r"[\w-]{1,200}\.[\w-]{1,3000}\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class InvalidToken(Exception):
    """Invalid or expired token; the text is the reason. Raised by `TokenSigner.read`."""


@dataclass(frozen=True)
class TokenIds:
    """Ids that a verified token carries: its own and its user's.

    `expires_at` is the token's end as Unix time.
    """

    id: UUID
    user_id: UUID
    expires_at: float


class TokenSigner:
    """Signs and verifies tokens.

    The signing key is read at first use: the server may start before its database.
    """

    def __init__(self, engine: Engine, settings: BaseSettings) -> None:
        self._engine = engine
        self.access_lifetime_s = _lifetime(settings, "CATLOG_API_ACCESS")
        self.refresh_lifetime_s = _lifetime(settings, "CATLOG_API_REFRESH")

    @cached_property
    def _key(self) -> bytes:
        return signing_key(self._engine)

    def access_token(self, issued: IssuedToken) -> str:
        """Sign an access token for the user of a refresh token."""
        expires_at = issued.made_at.timestamp() + self.access_lifetime_s
        # Name and role are for clients; the server reads both from the database.
        extra = {"name": issued.user, "role": issued.role}
        return self._sign("access", uuid4(), issued, expires_at, extra)

    def refresh_token(self, issued: IssuedToken) -> str:
        """Sign a refresh token."""
        return self._sign("refresh", issued.id, issued, issued.expires_at.timestamp(), {})

    def _sign(
        self,
        type_: TokenType,
        id_: UUID,
        issued: IssuedToken,
        expires_at: float,
        extra: dict[str, Any],
    ) -> str:
        claims = {
            "iss": ISSUER,
            "sub": str(issued.user_id),
            "typ": type_,
            "jti": str(id_),
            "iat": int(issued.made_at.timestamp()),
            "exp": math.ceil(expires_at),
            **extra,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def read(self, token: str, type_: TokenType, *, allow_expired: bool = False) -> TokenIds:
        """Verify a token of *type_* and return its ids. Raises InvalidToken."""
        if not TOKEN_PATTERN.fullmatch(token):
            raise InvalidToken(MALFORMED_TOKEN)
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # `iat` is the database's clock, and this machine's clock may be behind it.
                options={
                    "require": ["iss", "sub", "typ", "jti", "iat", "exp"],
                    "verify_iat": False,
                    "verify_exp": not allow_expired,
                },
            )
            ids = TokenIds(UUID(claims["jti"]), UUID(claims["sub"]), float(claims["exp"]))
        except jwt.ExpiredSignatureError as error:
            raise InvalidToken(EXPIRED_TOKEN) from error
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidToken(FOREIGN_TOKEN) from error
        if claims["typ"] != type_:
            raise InvalidToken(WRONG_TOKEN_TYPE.format(type=type_))
        return ids


def _lifetime(settings: BaseSettings, name: str) -> float:
    try:
        seconds = settings.getfloat(name)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= MAX_LIFETIME_S:
        raise ConfigurationError(
            f"{name} is {settings[name]!r}, which is not a lifetime of up to ten years;"
            " use seconds, such as 300"
        )
    return seconds
