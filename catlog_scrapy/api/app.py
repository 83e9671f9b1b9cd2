"""The HTTP API as one ASGI application."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from scrapy.settings import BaseSettings
from sqlalchemy import Engine
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from catlog_scrapy.api import health
from catlog_scrapy.api.auth import tokens
from catlog_scrapy.api.auth.callers import Access
from catlog_scrapy.api.concurrency_limit import ClientConcurrencyLimit
from catlog_scrapy.api.exception_handlers import handle_errors
from catlog_scrapy.api.executors import routes as executors
from catlog_scrapy.api.loads import catalogs, schedules
from catlog_scrapy.api.openapi import ABOUT, TAGS, serve_document
from catlog_scrapy.api.path_prefix import PathPrefix, configured_prefix
from catlog_scrapy.api.paths import PREFIX, PathNormalizer
from catlog_scrapy.api.request_limits import RequestLimits
from catlog_scrapy.api.resources.discovery import find_resources
from catlog_scrapy.api.resources.documentation import row_schemas
from catlog_scrapy.api.resources.media import media_router
from catlog_scrapy.api.resources.routes import (
    ListIndex,
    add_unavailable_resources,
    resource_router,
)
from catlog_scrapy.api.state import ServerState, install_state
from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.declarations.resources import Resources

logger = logging.getLogger(__name__)


def create_app(
    engine: Engine, settings: BaseSettings, resources: Resources, capabilities: Capabilities
) -> FastAPI:
    """Create the server of a project's database.

    A resource that does not fit its view is not served. Raises DeclarationError if no resource
    does.
    """
    with engine.connect() as connection:
        readable, mistakes = find_resources(connection, resources)
    for mistake in mistakes.values():
        logger.warning("%s; until then the server answers 503 for the resource", mistake)
    app = FastAPI(
        title="catlog",
        version=version("catlog-scrapy"),
        description=ABOUT,
        openapi_tags=TAGS,
        openapi_url=None,  # see serve_document
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=_run_maintenance,
    )
    state = install_state(app, engine, settings, capabilities)
    app.state.access = Access(engine, resources.roles, settings, statements=state.statements)
    resource_routes = resource_router(readable, engine, settings, state.statements)
    add_unavailable_resources(resource_routes, mistakes)
    app.router.routes.append(ListIndex(resource_routes, PREFIX))
    routers = (
        tokens.router,
        resource_routes,
        catalogs.router,
        schedules.router,
        executors.router,
        media_router(settings),
    )
    for router in routers:
        app.include_router(router, prefix=PREFIX)
    app.include_router(health.router)
    serve_document(app, row_schemas(readable))
    handle_errors(app)
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
    proxies = settings.getlist("CATLOG_API_PROXIES")
    if proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)
    app.add_middleware(PathPrefix, prefix=configured_prefix(settings), proxies=proxies)
    return app


@asynccontextmanager
async def _run_maintenance(app: FastAPI) -> AsyncIterator[None]:
    state: ServerState = app.state.server
    state.maintenance.start()
    yield
    state.statements.close()
    await anyio.to_thread.run_sync(state.maintenance.stop)


def _operation_id(route: APIRoute) -> str:
    return route.name
