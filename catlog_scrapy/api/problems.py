"""Errors as problem details, RFC 9457: one envelope for all of them."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from catlog_scrapy.store.sql import clean

PROBLEM_MEDIA_TYPE = "application/problem+json"

# What each status means here, for the documentation.
STATUS_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "No token or key, or one that does not count (any more).",
    403: "The role may not do that.",
    404: "There is no such thing.",
    405: "The path knows other methods.",
    408: "The request took too long to arrive.",
    409: "The present state does not allow it.",
    413: "The request is too large.",
    415: "The body has another media type than expected.",
    422: "A parameter or a field is wrong; `errors` names it.",
    429: "Too many attempts; `Retry-After` says when to come again.",
    503: "The database is away, or there is too much to do; `Retry-After` says when to come again.",
    504: "The answer took too long to find.",
}


class FieldError(BaseModel):
    """What is wrong with one part of the request."""

    field: str = Field(examples=["query.limit"])
    message: str = Field(examples=["Input should be less than or equal to 1000"])


class ProblemDetails(BaseModel):
    """RFC 9457. `errors` stands only where fields are wrong."""

    type: str = Field("about:blank", description="a URI that names the sort of problem")
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no catalog 7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0."])
    errors: list[FieldError] | None = None


class Problem(Exception):
    """An error that is an answer. Raised wherever a request cannot be served."""

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
        """The answer itself."""
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": clean(self.detail),
        }
        if self.errors:
            content["errors"] = [
                {"field": clean(field), "message": clean(message)} for field, message in self.errors
            ]
        return JSONResponse(
            content, self.status, headers=self.headers, media_type=PROBLEM_MEDIA_TYPE
        )


# Headers that come with them, always.
STATUS_HEADERS = {
    401: ("WWW-Authenticate", "Bearer and, where there was a token, what is wrong with it"),
    429: ("Retry-After", "seconds"),
    503: ("Retry-After", "seconds"),
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI's `responses` says of problems with these *statuses*."""
    return {
        status: {
            "description": STATUS_DESCRIPTIONS[status],
            "headers": {
                name: {"description": said, "required": True, "schema": {"type": "string"}}
                for name, said in [STATUS_HEADERS[status]]
            }
            if status in STATUS_HEADERS
            else {},
            "content": {
                PROBLEM_MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": STATUS_DESCRIPTIONS[status],
                    },
                }
            },
        }
        for status in statuses
    }


def invalid_parameter(name: str, message: str) -> Problem:
    """What is wrong with the parameter *name* of a URL, beyond what its type says."""
    return Problem(422, "a parameter is wrong.", errors=[(f"query.{name}", message)])
