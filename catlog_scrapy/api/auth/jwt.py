"""JSON Web Tokens: short ones that give access, long ones that are exchanged for both."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from uuid import UUID, uuid4

import jwt
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.store.access.tokens import IssuedToken, signing_key

ISSUER = "catlog"
ALGORITHM = "HS256"
Typ = Literal["access", "refresh"]
# As we write them. Before its signature is checked a header is read: a short one cannot be deep.
# Of a signature's last letter two bits mean nothing, and have to be zero.
TOKEN = re.compile(r"[\w-]{1,200}\.[\w-]{1,3000}\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class Unusable(Exception):
    """A token that does not count, or no token; its text says why. Raised by `Signer.read`."""


@dataclass(frozen=True)
class Token:
    """A token of ours: its own id, and its user's."""

    id: UUID
    user_id: UUID


class Signer:
    """Signs tokens and reads them. The key is fetched when it is first needed, not before."""

    def __init__(self, engine: Engine, settings: BaseSettings) -> None:
        self._engine = engine
        self.access_seconds = _seconds(settings, "CATLOG_API_ACCESS")
        self.refresh_seconds = _seconds(settings, "CATLOG_API_REFRESH")

    @cached_property
    def _key(self) -> bytes:
        return signing_key(self._engine)

    def access(self, to: IssuedToken) -> str:
        """An access token for whom *to* was made for."""
        made = to.made_at.timestamp()
        return self._sign(
            "access",
            uuid4(),
            to,
            made + self.access_seconds,
            # For who reads it; what counts is in the database.
            {"name": to.user, "role": to.role},
        )

    def refresh(self, token: IssuedToken) -> str:
        """The refresh token itself."""
        return self._sign("refresh", token.id, token, token.expires_at.timestamp(), {})

    def _sign(
        self, typ: Typ, id_: UUID, to: IssuedToken, until: float, more: dict[str, Any]
    ) -> str:
        claims = {
            "iss": ISSUER,
            "sub": str(to.user_id),
            "typ": typ,
            "jti": str(id_),
            "iat": int(to.made_at.timestamp()),
            "exp": math.ceil(until),
            **more,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def read(self, token: str, typ: Typ, *, expired: bool = False) -> Token:
        """A token of this *typ*; if *expired*, one that has is good as well. Raises Unusable."""
        if not TOKEN.fullmatch(token):
            raise Unusable("this is no token")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # `iat` is the database's time, of which this machine may be a little behind.
                options={
                    "require": ["iss", "sub", "typ", "jti", "iat", "exp"],
                    "verify_iat": False,
                    "verify_exp": not expired,
                },
            )
            found = Token(UUID(claims["jti"]), UUID(claims["sub"]))
        except jwt.ExpiredSignatureError as error:
            raise Unusable("the token has expired") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise Unusable("the token is none of this server") from error
        if claims["typ"] != typ:
            raise Unusable(f"this is no {typ} token")
        return found


def _seconds(settings: BaseSettings, name: str) -> float:
    try:
        seconds = settings.getfloat(name)
    except (TypeError, ValueError):
        seconds = 0.0
    # Up to ten years: a token for longer is a key.
    if not 0 < seconds <= 3653 * 86400:
        raise ConfigurationError(f"{name} is {settings[name]!r}; write seconds, such as 300.")
    return seconds
