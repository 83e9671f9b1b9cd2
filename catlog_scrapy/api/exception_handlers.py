"""Conversion of every error into problem details."""

import logging
from collections.abc import Callable
from typing import Any

import psycopg2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from psycopg2.errors import (
    DatatypeMismatch,
    QueryCanceled,
    ReadOnlySqlTransaction,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedTable,
)
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from catlog_scrapy.api.problems import DATABASE_RETRY_S, Problem
from catlog_scrapy.db.driver import is_unavailable
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import NotFound, NotPossible

logger = logging.getLogger(__name__)

# Query parameters whose values never reach the database.
HARMLESS_PARAMETERS = {"limit", "offset", "fields", "format", "order"}
RETRY_HEADERS = {"Retry-After": DATABASE_RETRY_S}


def handle_errors(app: FastAPI) -> None:
    """Let *app* answer every error with problem details."""

    def on(error: type[Exception], to_problem: Callable[[Any], Problem]) -> None:
        async def handle(request: Request, raised: Exception) -> Response:
            database_error = getattr(raised, "orig", raised)
            if isinstance(database_error, psycopg2.DataError):
                problem = _invalid_value(request, database_error)
            else:
                problem = to_problem(raised)
            if problem.status == 405:
                # Starlette only lists the methods of the first route of a path.
                allowed = ", ".join(_supported_methods(app, request.scope["path"]))
                problem.headers["Allow"] = allowed
            return problem.response()

        app.add_exception_handler(error, handle)

    on(Problem, lambda problem: problem)
    on(RequestValidationError, _invalid_request)
    on(HTTPException, lambda error: Problem(error.status_code, error.detail, headers=error.headers))
    on(NotFound, lambda error: Problem(404, str(error)))
    on(NotPossible, lambda error: Problem(409, str(error)))
    on(exc.SQLAlchemyError, _sqlalchemy_error)
    on(psycopg2.Error, _driver_error)
    on(Exception, _unexpected)


def _supported_methods(app: FastAPI, path: str) -> list[str]:
    supported: set[str] = set()
    for template, methods in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            supported |= {method.upper() for method in methods}
    return sorted(supported)


def _invalid_request(error: RequestValidationError) -> Problem:
    errors = []
    for part in error.errors():
        if part["type"] == "json_invalid":
            return Problem(400, f"the body is not valid JSON: {part['ctx']['error']}")
        place = ".".join(str(step) for step in part["loc"])
        errors.append((place[:300], part["msg"]))
    return Problem(422, f"{errors[0][0]}: {errors[0][1]}", errors=errors)


def _sqlalchemy_error(error: exc.SQLAlchemyError) -> Problem:
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg2.Error):
        return _driver_error(error.orig)
    if isinstance(error, UNAVAILABLE):
        return _database_unavailable(error)
    return _unexpected(error)


def _driver_error(error: psycopg2.Error) -> Problem:
    if isinstance(error, QueryCanceled):
        return Problem(504, "the query took too long; use more filters or a smaller page")
    if is_unavailable(error) or isinstance(error, ReadOnlySqlTransaction):
        return _database_unavailable(error)
    if isinstance(error, UndefinedTable | UndefinedColumn | UndefinedFunction | DatatypeMismatch):
        logger.warning("a view has changed since the server started: %s", reason(error))
        return Problem(
            503,
            "the views have changed since the server started; restart the server",
            headers=RETRY_HEADERS,
        )
    return _unexpected(error)


def _invalid_value(request: Request, error: Exception) -> Problem:
    """Return the problem of a value that PostgreSQL cannot convert to its type.

    The problem does not name the value, because the value may be in a hidden column.
    """
    is_read = request.method == "GET" and not request.path_params
    if is_read and not set(request.query_params) - HARMLESS_PARAMETERS:
        logger.error("a view cannot be read: %s", reason(error))
        return Problem(500, "a value in the view does not fit its type; see the server's log")
    logger.warning("a value does not fit its type: %s", reason(error))
    return Problem(
        422, "a value of the request or in the view does not fit its type; see the server's log"
    )


def _database_unavailable(error: Exception) -> Problem:
    logger.warning("the database is unavailable: %s", reason(error))
    return Problem(503, "the database is unavailable", headers=RETRY_HEADERS)


def _unexpected(error: Exception) -> Problem:
    logger.error("a request failed", exc_info=error)
    return Problem(500, "internal error; see the server's log")
