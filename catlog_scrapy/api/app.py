"""The server put together."""

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

import psycopg2
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from psycopg2.errors import (
    DatatypeMismatch,
    QueryCanceled,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedTable,
)
from pydantic import BaseModel
from scrapy.settings import BaseSettings
from sqlalchemy import Engine, exc
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from catlog_scrapy.api.auth.callers import Access
from catlog_scrapy.api.auth.tokens import tokens
from catlog_scrapy.api.executors.routes import executors
from catlog_scrapy.api.limits import PREFIX, ClientConcurrencyLimit, PathNormalizer, RequestLimits
from catlog_scrapy.api.loads.routes import driving
from catlog_scrapy.api.openapi import document
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.api.resources.media import media
from catlog_scrapy.api.resources.routes import readables, reading
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.db.migrations import require_head
from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.declarations.resources import Resources
from catlog_scrapy.exceptions import CatlogError, NotFound, NotPossible

logger = logging.getLogger(__name__)

ABOUT = """What was loaded, for other programs, and what is to be loaded.

Log in by `POST /api/v1/token/`, or bring an API key; send either as `Authorization: Bearer ...`.
A slash at the end of a path is optional. Errors are problem details (RFC 9457). A change that is
sent with an `Idempotency-Key` is done once, however often it is sent."""
# Parameters whose values the database never sees.
HARMLESS = {"limit", "offset", "fields", "format", "order"}
# Seconds that a client should wait for a database that is away.
RETRY_AFTER = "5"


class Health(BaseModel):
    """That the server is there."""

    status: Literal["ok"] = "ok"


def create_app(
    engine: Engine, settings: BaseSettings, resources: Resources, capabilities: Capabilities
) -> FastAPI:
    """The server of a project's database. Raises DeclarationError for a wrong resource."""
    with engine.connect() as connection:
        found = readables(connection, resources)
    access = Access(engine, resources.roles, settings)
    app = FastAPI(
        title="catlog",
        version=version("catlog-scrapy"),
        description=ABOUT,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    reads, schemas = reading(engine, access, settings, found)
    routers = (
        tokens(access),
        reads,
        driving(engine, access, capabilities),
        executors(engine, access, settings),
        media(access, settings),
    )
    for router in routers:
        app.include_router(router, prefix=PREFIX)
    app.include_router(health(engine))
    document(app, schemas)
    _handle_errors(app)
    if origins := settings.getlist("CATLOG_API_CORS"):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Idempotency-Key"],
            expose_headers=["ETag", "Location", "Retry-After", "Idempotent-Replayed"],
        )
    app.add_middleware(ClientConcurrencyLimit, settings=settings)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(PathNormalizer)
    return app


def health(engine: Engine) -> APIRouter:
    """Whether the server is there, and whether it can answer."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The server is there")
    async def healthz() -> Health:
        # In no thread: they may all be waiting for the database.
        return Health()

    @router.get("/readyz", summary="It can answer", responses=problem_responses(503))
    def readyz() -> Health:
        try:
            require_head(engine)
        except CatlogError as error:
            raise Problem(503, str(error), headers={"Retry-After": RETRY_AFTER}) from error
        return Health()

    return router


def _handle_errors(app: FastAPI) -> None:
    """Make a problem of every error."""

    def on(error: type[Exception], answer: Callable[[Any], Problem]) -> None:
        async def handle(request: Request, raised: Exception) -> Response:
            fault = getattr(raised, "orig", raised)
            is_data = isinstance(fault, psycopg2.DataError)
            problem = _wrong_value(request, fault) if is_data else answer(raised)
            if problem.status == 405:
                # A router knows the methods of its first route for a path alone.
                problem.headers["Allow"] = ", ".join(_methods(app, request.scope["path"]))
            return problem.response()

        app.add_exception_handler(error, handle)

    on(Problem, lambda problem: problem)
    on(RequestValidationError, _invalid)
    on(HTTPException, lambda error: Problem(error.status_code, error.detail, headers=error.headers))
    on(NotFound, lambda error: Problem(404, str(error)))
    on(NotPossible, lambda error: Problem(409, str(error)))
    on(exc.SQLAlchemyError, _database)
    on(psycopg2.Error, _driver)
    on(Exception, _unexpected)


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods that *path* knows."""
    found: set[str] = set()
    for known, methods in app.openapi()["paths"].items():
        if compile_path(known)[0].match(path):
            found |= {method.upper() for method in methods}
    return sorted(found)


def _invalid(error: RequestValidationError) -> Problem:
    errors = []
    for part in error.errors():
        place = [str(step) for step in part["loc"]]
        if part["type"] == "json_invalid":
            return Problem(400, f"the body is no JSON: {part['ctx']['error']}.")
        errors.append((".".join(place)[:300], part["msg"]))
    return Problem(422, f"{errors[0][0]}: {errors[0][1]}", errors=errors)


def _database(error: exc.SQLAlchemyError) -> Problem:
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, psycopg2.Error):
        return _driver(error.orig)
    if isinstance(error, UNAVAILABLE):
        return _away(error)
    return _unexpected(error)


def _driver(error: psycopg2.Error) -> Problem:
    if isinstance(error, QueryCanceled):
        return Problem(504, "the answer took too long to find; narrow it by filters.")
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return _away(error)
    if isinstance(error, UndefinedTable | UndefinedColumn | UndefinedFunction | DatatypeMismatch):
        logger.warning("a view has changed since the server started: %s", reason(error))
        return Problem(
            503,
            "the views have changed since the server started; it has to be started anew.",
            headers={"Retry-After": RETRY_AFTER},
        )
    return _unexpected(error)


def _wrong_value(request: Request, error: Exception) -> Problem:
    """Where a value is none of its type; which one is not said, for it may be a hidden column's."""
    if request.method != "GET" or request.path_params or set(request.query_params) - HARMLESS:
        logger.warning("a value is none of its type: %s", reason(error))
        return Problem(
            422,
            "a value is none of its type: one that was asked for, or one in the view; the server's"
            " log says which.",
        )
    logger.error("a view cannot be read: %s", reason(error))
    return Problem(500, "a value in the view is none of its type; the server's log says which.")


def _away(error: Exception) -> Problem:
    logger.warning("the database is away: %s", reason(error))
    return Problem(503, "the database is away.", headers={"Retry-After": RETRY_AFTER})


def _unexpected(error: Exception) -> Problem:
    logger.error("a request failed", exc_info=error)
    return Problem(500, "the server failed; its log says how.")
