"""Shared state of the server, as a FastAPI dependency."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI, Request
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.executors.body_budget import BodyBudget
from catlog_scrapy.api.maintenance import MaintenanceThread
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.declarations.capabilities import Capabilities

# Batches parsed and stored at the same time: each takes several times its size of memory.
MAX_CONCURRENT_BATCHES = 2
# Time that a request waits for a connection to the database.
CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class ServerState:
    """Parts of the server that the routes share."""

    engine: Engine
    settings: BaseSettings
    capabilities: Capabilities
    maintenance: MaintenanceThread
    batch_limiter: CapacityLimiter
    body_budget: BodyBudget
    statements: StatementPool

    @property
    def lease_s(self) -> float:
        """The length of a lease in seconds."""
        return self.settings.getfloat("CATLOG_LEASE")


def install_state(
    app: FastAPI, engine: Engine, settings: BaseSettings, capabilities: Capabilities
) -> ServerState:
    """Make the state of *app*."""
    maintenance = MaintenanceThread(
        engine, lease=settings.getfloat("CATLOG_LEASE"), poll=settings.getfloat("CATLOG_POLL")
    )
    limiter = CapacityLimiter(MAX_CONCURRENT_BATCHES)
    statements = StatementPool(
        engine.url,
        statement_timeout=settings.getfloat("CATLOG_API_TIMEOUT"),
        connect_timeout=CONNECT_TIMEOUT_S,
    )
    budget = BodyBudget(
        settings.getint("CATLOG_API_BATCH"), settings.getfloat("CATLOG_API_TIMEOUT")
    )
    app.state.server = ServerState(
        engine, settings, capabilities, maintenance, limiter, budget, statements
    )
    state: ServerState = app.state.server
    return state


# FastAPI runs a dependency that is not asynchronous in a thread.
async def _server_state(request: Request) -> ServerState:
    state: ServerState = request.app.state.server
    return state


State = Annotated[ServerState, Depends(_server_state)]
