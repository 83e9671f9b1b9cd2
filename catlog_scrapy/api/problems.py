"""Errors as problem details (RFC 9457)."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from catlog_scrapy.store.sql import clean

PROBLEM_MEDIA_TYPE = "application/problem+json"
# Seconds after which a client may ask again while the database is unavailable; a header's value.
DATABASE_RETRY_S = "5"
# The first word of a detail, unless it is a name such as `acme/goods`.
FIRST_WORD = re.compile(r"[a-z]+(?=[ ,:;.]|$)")

# Descriptions of the statuses, for the OpenAPI document.
STATUS_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "The token or key is missing, invalid, expired or revoked.",
    403: "The role or the key lacks the permission.",
    404: "The requested object does not exist.",
    405: "The path does not support this method; `Allow` lists the supported methods.",
    408: "The request did not arrive in time.",
    409: "The current state of the object does not allow the request.",
    413: "The request is too large.",
    415: "The media type of the body is not supported.",
    422: "A parameter or a field is invalid; `errors` names it.",
    429: "Too many failed log-ins; try again after `Retry-After`.",
    503: "The database is unavailable or the server is overloaded; try again after `Retry-After`.",
    504: "The query took too long.",
}
# Headers that every response with the status has.
STATUS_HEADERS = {
    401: ("WWW-Authenticate", "The scheme `Bearer`, with `error` if the credentials are invalid."),
    429: ("Retry-After", "Seconds until the next attempt."),
    503: ("Retry-After", "Seconds until the next attempt."),
}


class FieldError(BaseModel):
    """An invalid part of the request."""

    field: str = Field(
        description="Place of the value: `query`, `path`, `header` or `body`, and its name.",
        examples=["query.limit"],
    )
    message: str = Field(
        description="Reason, for people.",
        examples=["Input should be less than or equal to 1000"],
    )


class ProblemDetails(BaseModel):
    """Error as problem details (RFC 9457)."""

    type: str = Field("about:blank", description="URI of the problem type; always `about:blank`.")
    title: str = Field(description="Name of the HTTP status.", examples=["Not Found"])
    status: int = Field(description="HTTP status.", examples=[404])
    detail: str = Field(
        description="Explanation of this error, for people.",
        examples=["No catalog 7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0."],
    )
    errors: list[FieldError] | None = Field(
        None, description="Invalid parts of the request; present if the server can name them."
    )


class Problem(Exception):
    """Error that is sent to the client. Raised wherever a request cannot be served."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the problem as a response."""
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": as_sentence(clean(self.detail)),
        }
        if self.errors:
            content["errors"] = [
                {"field": clean(field), "message": clean(message)} for field, message in self.errors
            ]
        return JSONResponse(
            content, self.status, headers=self.headers, media_type=PROBLEM_MEDIA_TYPE
        )


def as_sentence(text: str) -> str:
    """Return *text* with a capital letter and a full stop; a name at its beginning stays.

    >>> as_sentence("no catalog 1"), as_sentence("acme/goods has a schedule.")
    ('No catalog 1.', 'acme/goods has a schedule.')
    """
    if FIRST_WORD.match(text):
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def invalid_parameter(name: str, message: str) -> Problem:
    """Return the problem of the query parameter *name*, beyond its type."""
    return Problem(422, f"query.{name}: {message}", errors=[(f"query.{name}", message)])


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for problems with these *statuses*."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> dict[str, Any]:
    headers = {}
    if status in STATUS_HEADERS:
        name, description = STATUS_HEADERS[status]
        schema = {"type": "string"}
        headers[name] = {"description": description, "required": True, "schema": schema}
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": STATUS_DESCRIPTIONS[status],
    }
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        "description": STATUS_DESCRIPTIONS[status],
        "headers": headers,
        "content": {PROBLEM_MEDIA_TYPE: {"schema": schema, "example": example}},
    }
