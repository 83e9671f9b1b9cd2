"""Responses 401: their texts and their challenge."""

from catlog_scrapy.api.problems import Problem

NO_CREDENTIALS = "send an access token or an API key"
INVALID_KEY = "the API key is unknown, revoked or expired"
DISABLED_USER = "the user is disabled or removed"
WRONG_PASSWORD = "the user name or the password is wrong, or the user is disabled"
USED_REFRESH_TOKEN = "the refresh token was replaced or revoked; log in again"
MALFORMED_TOKEN = "the text is not a token of this server"
EXPIRED_TOKEN = "the token has expired"
FOREIGN_TOKEN = "the token was not issued by this server"
WRONG_TOKEN_TYPE = "the token is not a token of the type {type}"


def unauthorized(detail: str, error: str | None = None) -> Problem:
    """Return a 401 problem; *error* is an error code of RFC 6750."""
    challenge = 'Bearer realm="catlog"' + (f', error="{error}"' if error else "")
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
