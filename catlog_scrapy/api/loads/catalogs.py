"""Routes that start, retry and cancel loads."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from catlog_scrapy.api.auth.callers import Caller, permission
from catlog_scrapy.api.changes import IDEMPOTENT, ChangeResult, run_change
from catlog_scrapy.api.loads.arguments import (
    Arguments,
    Name,
    require_known_arguments,
    require_valid_templates,
)
from catlog_scrapy.api.paths import PREFIX
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.api.state import ServerState, State
from catlog_scrapy.api.strict_model import StrictModel
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.queue.instances import DUE_AT_PLACEHOLDER
from catlog_scrapy.store.reading.status import catalog_state, operation_place
from catlog_scrapy.store.sql import Transaction

MAX_PRIORITY = 2**31 - 1
CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The catalog is created and waits to be loaded.",
        "headers": {
            "Location": {
                "description": "Path of the catalog.",
                "schema": {"type": "string"},
                "required": True,
            }
        },
    }
}

router = APIRouter(tags=["loads"], responses=problem_responses(401, 403, 404, 409, 422))
CatalogId = Annotated[UUID, Path(description="Id of the catalog.")]


class LoadOptions(StrictModel):
    """Arguments and priority of a load.

    A load with arguments is partial: it never removes records.
    """

    arguments: Arguments = Field(
        {},
        description="Arguments of the spiders, by name. `{due_at}` stands for the time of the load,"
        " such as `{due_at:%Y-%m-%d}`.",
        examples=[{}],
    )
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = Field(
        0, description="Instances with a higher priority run first."
    )


class NewCatalog(LoadOptions):
    """Catalog to create: a load of a scheme, or of one operation of a scheme."""

    provider: Name = Field(description="Name of the provider.", examples=["tatneft"])
    scheme: Name = Field(description="Name of the scheme.", examples=["prices"])
    operation: Name | None = Field(
        None, description="Name of the only operation to load; null loads the whole scheme."
    )


class CatalogState(BaseModel):
    """Id and state of a catalog; `GET /catalogs/{id}` returns the whole catalog."""

    id: UUID = Field(description="Id of the catalog.")
    state: str = Field(
        description="State of the catalog, such as `waiting` or `cancelled`.", examples=["waiting"]
    )


@router.post(
    "/schedule_catalog_scheme_operation/{operation_id}",
    status_code=201,
    response_model=CatalogState,
    summary="Load one operation now",
    responses=CREATED,
    openapi_extra=IDEMPOTENT,
)
def schedule_operation(
    request: Request,
    operation_id: Annotated[UUID, Path(description="Id of an operation of a scheme.")],
    state: State,
    caller: Annotated[Caller, Depends(permission("catalog_scheme_operations", "schedule"))],
    options: LoadOptions | None = None,
) -> Response:
    """Create a catalog that loads one operation.

    If the scheme has no other operation, the catalog is a load of the whole scheme.
    """
    given = options or LoadOptions()

    def work(tx: Transaction) -> ChangeResult:
        return _create(tx, state, _catalog_of_operation(tx, operation_id, given))

    action = "catalog_scheme_operations:schedule"
    return run_change(state.engine, request, caller, action, work, body=given.model_dump())


@router.post(
    "/catalogs",
    status_code=201,
    response_model=CatalogState,
    summary="Load a scheme now",
    responses=CREATED,
    openapi_extra=IDEMPOTENT,
)
def create_catalog(
    request: Request,
    catalog: NewCatalog,
    state: State,
    caller: Annotated[Caller, Depends(permission("catalogs", "create"))],
) -> Response:
    """Create a catalog, which workers and executors load as soon as they have capacity."""

    def work(tx: Transaction) -> ChangeResult:
        return _create(tx, state, catalog)

    body = catalog.model_dump()
    return run_change(state.engine, request, caller, "catalogs:create", work, body=body)


@router.post(
    "/catalogs/{catalog_id}/retry",
    response_model=CatalogState,
    response_description="The catalog is loading again, or waits to be loaded.",
    summary="Retry a catalog",
    openapi_extra=IDEMPOTENT,
)
def retry_catalog(
    request: Request,
    catalog_id: CatalogId,
    state: State,
    caller: Annotated[Caller, Depends(permission("catalogs", "retry"))],
    now: Annotated[
        bool,
        Query(description="Also take an open catalog, and begin the attempts that it waits for."),
    ] = False,
) -> Response:
    """Load a failed or cancelled catalog again. Instances that are done stay done."""

    def work(tx: Transaction) -> ChangeResult:
        (catalogs.retry_now if now else catalogs.retry)(tx, catalog_id)
        return _state_of(tx, catalog_id)

    return run_change(state.engine, request, caller, "catalogs:retry", work)


@router.post(
    "/catalogs/{catalog_id}/cancel",
    response_model=CatalogState,
    response_description="The catalog is cancelled.",
    summary="Cancel a catalog",
    openapi_extra=IDEMPOTENT,
)
def cancel_catalog(
    request: Request,
    catalog_id: CatalogId,
    state: State,
    caller: Annotated[Caller, Depends(permission("catalogs", "cancel"))],
) -> Response:
    """Cancel a catalog that is waiting or loading. Its spiders stop at their next heartbeat."""

    def work(tx: Transaction) -> ChangeResult:
        catalogs.cancel(tx, catalog_id)
        return _state_of(tx, catalog_id)

    return run_change(state.engine, request, caller, "catalogs:cancel", work)


def _create(tx: Transaction, state: ServerState, catalog: NewCatalog) -> ChangeResult:
    require_known_arguments(
        tx,
        state,
        catalog.arguments,
        provider=catalog.provider,
        scheme=catalog.scheme,
        operation=catalog.operation,
    )
    # Only arguments with the placeholder are templates; braces in other arguments are plain text.
    require_valid_templates(
        {name: text for name, text in catalog.arguments.items() if DUE_AT_PLACEHOLDER in text}
    )
    id_ = catalogs.create(
        tx,
        catalog.provider,
        catalog.scheme,
        operation=catalog.operation,
        arguments=catalog.arguments,
        origin="api",
        priority=catalog.priority,
    )
    return ChangeResult(
        f"catalog {id_}",
        {"id": str(id_), "state": "waiting"},
        status=201,
        detail=catalog.model_dump(exclude_none=True),
        headers={"Location": f"{PREFIX}/catalogs/{id_}"},
    )


def _catalog_of_operation(tx: Transaction, operation_id: UUID, options: LoadOptions) -> NewCatalog:
    """Return the catalog of one operation, or of a whole scheme with a single operation."""
    place = operation_place(tx, operation_id)
    if place["retired_at"]:
        raise Problem(
            409, "the operation belongs to a retired version of its scheme; use the current version"
        )
    return NewCatalog(
        provider=place["provider"],
        scheme=place["scheme"],
        operation=None if place["is_alone"] else place["name"],
        **options.model_dump(),
    )


def _state_of(tx: Transaction, catalog_id: UUID) -> ChangeResult:
    state = catalog_state(tx, catalog_id)
    return ChangeResult(f"catalog {catalog_id}", {"id": str(catalog_id), "state": state})
