"""Health checks."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from catlog_scrapy.api.problems import DATABASE_RETRY_S, Problem, problem_responses
from catlog_scrapy.api.state import State
from catlog_scrapy.db.migrations import require_head
from catlog_scrapy.exceptions import CatlogError

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """State of the server."""

    status: Literal["ok"] = Field("ok", description="Always `ok`.")


@router.get(
    "/healthz", response_description="The server runs.", summary="Check that the server runs"
)
async def healthz() -> Health:
    """Return `ok` without a look at the database."""
    # Asynchronous, because all threads may be waiting for the database.
    return Health()


@router.get(
    "/readyz",
    response_description="The server can answer requests.",
    summary="Check that the server can answer requests",
    responses=problem_responses(503),
)
def readyz(state: State) -> Health:
    """Return `ok` if the database is reachable and its schema is the server's version."""
    try:
        require_head(state.engine)
    except CatlogError as error:
        raise Problem(503, str(error), headers={"Retry-After": DATABASE_RETRY_S}) from error
    return Health()
