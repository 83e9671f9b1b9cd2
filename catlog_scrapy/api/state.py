"""Shared state of the server, as a FastAPI dependency."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI, Request
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.maintenance import MaintenanceThread
from catlog_scrapy.declarations.capabilities import Capabilities

# Batches parsed and stored at the same time: each takes several times its size of memory.
MAX_CONCURRENT_BATCHES = 2


@dataclass(frozen=True)
class ServerState:
    """Parts of the server that the routes share."""

    engine: Engine
    settings: BaseSettings
    capabilities: Capabilities
    maintenance: MaintenanceThread
    batch_limiter: CapacityLimiter

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
    app.state.server = ServerState(engine, settings, capabilities, maintenance, limiter)
    state: ServerState = app.state.server
    return state


def server_state(request: Request) -> ServerState:
    """Return the state of the server that received *request*."""
    state: ServerState = request.app.state.server
    return state


State = Annotated[ServerState, Depends(server_state)]
