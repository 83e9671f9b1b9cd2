"""What is to be loaded: catalogs made, retried and cancelled; schedules."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import Engine

from catlog_scrapy.api.auth.callers import Access, Caller
from catlog_scrapy.api.changes import ONCE, Changed, change
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.api.resources.parameters import Text
from catlog_scrapy.api.strict_model import StrictModel
from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.declarations.model import ScheduleName
from catlog_scrapy.declarations.template_checks import template_mistake
from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.scheduling.argument_templates import DUE_AT
from catlog_scrapy.scheduling.due import CronError, TimeZoneError
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.queue.instances import DUE_AT_PLACEHOLDER
from catlog_scrapy.store.queue.schedules import changes as timetable
from catlog_scrapy.store.reading.status import catalog_state, operation_place, scheme_operations
from catlog_scrapy.store.sql import Transaction

PROBLEMS = problem_responses(401, 403, 404, 409, 422)
MADE: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "It is made.",
        "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
    }
}
MOST_PRIORITY = 2**31 - 1
BASE_URL = "base_url"

Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Arguments = Annotated[dict[Word, Text], Field(max_length=100)]
Priority = Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)]
Cron = Annotated[str, StringConstraints(max_length=200)]


class LoadOptions(StrictModel):
    """How to run one operation; an argument narrows the load: it then removes no record."""

    arguments: Arguments = Field({}, examples=[{}])
    priority: Priority = Field(0, description="higher ones are first")


class NewCatalog(LoadOptions):
    """What to load: a scheme, or one operation of it."""

    provider: Word = Field(examples=["tatneft"])
    scheme: Word = Field(examples=["prices"])
    operation: Word | None = None


class CatalogState(BaseModel):
    """A catalog as it is now; `GET /catalogs/{id}` has all of it."""

    id: UUID
    state: str = Field(examples=["waiting"])


class ScheduleChange(StrictModel):
    """What to change of a schedule."""

    cron: Cron = Field("", examples=["*/5 * * * *"])
    timezone: Word = Field("UTC", examples=["Europe/Moscow"])
    arguments: Arguments = {}
    catch_up: Literal["latest", "none"] = "latest"
    enabled: bool = True


class NewSchedule(StrictModel):
    """A schedule that is kept in the database alone."""

    provider: Word = Field(examples=["tatneft"])
    scheme: Word = Field(examples=["prices"])
    name: Annotated[ScheduleName, StringConstraints(max_length=200)] = Field(examples=["hourly"])
    cron: Cron = Field(examples=["0 * * * *"])
    timezone: Word = Field("UTC", examples=["Europe/Moscow"])
    arguments: Arguments = {}
    catch_up: Literal["latest", "none"] = "latest"


class ScheduleState(BaseModel):
    """A schedule's id; `GET /schedules/{id}` has all of it."""

    id: UUID


class DueTimes(BaseModel):
    """When a schedule is due next, or would be if it were not paused."""

    due_times: list[dt.datetime]


def driving(engine: Engine, access: Access, capabilities: Capabilities) -> APIRouter:
    """The routes. *capabilities* says which arguments the project's spiders know."""
    router = APIRouter(responses=PROBLEMS)
    may_schedule = access.permitted("catalog_scheme_operations", "schedule")
    may_create = access.permitted("catalogs", "create")
    may_retry = access.permitted("catalogs", "retry")
    may_cancel = access.permitted("catalogs", "cancel")
    may_make = access.permitted("schedules", "create")
    may_change = access.permitted("schedules", "change")
    may_read = access.permitted("schedules", "read")

    def create(tx: Transaction, wanted: NewCatalog) -> Changed:
        place = (wanted.provider, wanted.scheme, wanted.operation)
        _require_known(tx, capabilities, place, wanted.arguments)
        # Of a load's arguments only those that name the due time are filled in.
        _require_filled({k: v for k, v in wanted.arguments.items() if DUE_AT_PLACEHOLDER in v})
        made = catalogs.create(
            tx,
            wanted.provider,
            wanted.scheme,
            operation=wanted.operation,
            arguments=wanted.arguments,
            origin="api",
            priority=wanted.priority,
        )
        return Changed(
            f"catalog {made}",
            {"id": str(made), "state": "waiting"},
            status=201,
            detail=wanted.model_dump(exclude_none=True),
            headers={"Location": f"/api/v1/catalogs/{made}"},
        )

    @router.post(
        "/schedule_catalog_scheme_operation/{operation_id}",
        status_code=201,
        response_model=CatalogState,
        tags=["driving"],
        summary="Load one operation now",
        responses=MADE,
        openapi_extra=ONCE,
    )
    def schedule_operation(
        request: Request,
        operation_id: UUID,
        caller: Annotated[Caller, Depends(may_schedule)],
        options: LoadOptions | None = None,
    ) -> Response:
        asked = options or LoadOptions()

        def work(tx: Transaction) -> Changed:
            return create(tx, _whole(tx, operation_id, asked))

        action = "catalog_scheme_operations:schedule"
        return change(engine, request, caller, action, work, body=asked.model_dump())

    @router.post(
        "/catalogs",
        status_code=201,
        response_model=CatalogState,
        tags=["driving"],
        summary="Load a scheme now",
        responses=MADE,
        openapi_extra=ONCE,
    )
    def create_catalog(
        request: Request, wanted: NewCatalog, caller: Annotated[Caller, Depends(may_create)]
    ) -> Response:
        return change(
            engine,
            request,
            caller,
            "catalogs:create",
            lambda tx: create(tx, wanted),
            body=wanted.model_dump(),
        )

    def verb(
        name: str, permitted: Callable[..., Caller], do: Callable[[Transaction, UUID], None]
    ) -> None:
        @router.post(
            f"/catalogs/{{catalog_id}}/{name}",
            response_model=CatalogState,
            tags=["driving"],
            summary=f"{name.capitalize()} a catalog",
            openapi_extra=ONCE,
            name=f"{name}_catalog",
        )
        def act(
            request: Request, catalog_id: UUID, caller: Annotated[Caller, Depends(permitted)]
        ) -> Response:
            def work(tx: Transaction) -> Changed:
                do(tx, catalog_id)
                state = catalog_state(tx, catalog_id)
                return Changed(f"catalog {catalog_id}", {"id": str(catalog_id), "state": state})

            return change(engine, request, caller, f"catalogs:{name}", work, body=None)

    verb("retry", may_retry, catalogs.retry)
    verb("cancel", may_cancel, catalogs.cancel)

    @router.post(
        "/schedules",
        status_code=201,
        response_model=ScheduleState,
        tags=["schedules"],
        summary="Make a schedule",
        responses=MADE,
        openapi_extra=ONCE,
    )
    def create_schedule(
        request: Request, wanted: NewSchedule, caller: Annotated[Caller, Depends(may_make)]
    ) -> Response:
        def work(tx: Transaction) -> Changed:
            _require_known(
                tx, capabilities, (wanted.provider, wanted.scheme, None), wanted.arguments
            )
            _require_filled(wanted.arguments)
            with _cron_errors():
                made = timetable.create(tx, **wanted.model_dump())
            return Changed(
                f"schedule {made}",
                {"id": str(made)},
                status=201,
                detail=wanted.model_dump(),
                headers={"Location": f"/api/v1/schedules/{made}"},
            )

        return change(engine, request, caller, "schedules:create", work, body=wanted.model_dump())

    @router.patch(
        "/schedules/{id}",
        response_model=ScheduleState,
        tags=["schedules"],
        summary="Change a schedule that no provider file declares",
        openapi_extra=ONCE,
    )
    def change_schedule(
        request: Request,
        schedule_id: Annotated[UUID, Path(alias="id")],
        wanted: ScheduleChange,
        caller: Annotated[Caller, Depends(may_change)],
    ) -> Response:
        changes = wanted.model_dump(exclude_unset=True)

        def work(tx: Transaction) -> Changed:
            if wanted.arguments:
                place = (*timetable.provider_and_scheme(tx, schedule_id), None)
                _require_known(tx, capabilities, place, wanted.arguments)
                _require_filled(wanted.arguments)
            with _cron_errors():
                timetable.change(tx, schedule_id, changes)
            return Changed(f"schedule {schedule_id}", {"id": str(schedule_id)}, detail=changes)

        return change(engine, request, caller, "schedules:change", work, body=changes)

    def switch(name: str, do: Callable[[Transaction, UUID], None]) -> None:
        @router.post(
            f"/schedules/{{schedule_id}}/{name}",
            response_model=ScheduleState,
            tags=["schedules"],
            summary=f"{name.capitalize()} a schedule",
            openapi_extra=ONCE,
            name=f"{name}_schedule",
        )
        def act(
            request: Request, schedule_id: UUID, caller: Annotated[Caller, Depends(may_change)]
        ) -> Response:
            def work(tx: Transaction) -> Changed:
                do(tx, schedule_id)
                said = {"to": name}
                return Changed(f"schedule {schedule_id}", {"id": str(schedule_id)}, detail=said)

            return change(engine, request, caller, "schedules:change", work, body=None)

    switch("pause", timetable.pause)
    switch("resume", timetable.resume)

    @router.get(
        "/schedules/{schedule_id}/due_times",
        response_model=DueTimes,
        tags=["schedules"],
        summary="When a schedule is due next",
        dependencies=[Depends(may_read)],
    )
    def due_times(
        schedule_id: UUID, count: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> dict[str, Any]:
        return {"due_times": timetable.preview(engine, schedule_id, count)}

    return router


def _whole(tx: Transaction, operation_id: UUID, options: LoadOptions) -> NewCatalog:
    """The catalog that loads one operation; the whole scheme, where it has no other one."""
    found = operation_place(tx, operation_id)
    if found["retired_at"]:
        raise Problem(409, "the operation's version of its scheme is retired; use a present one.")
    return NewCatalog(
        provider=found["provider"],
        scheme=found["scheme"],
        operation=None if found["is_alone"] else found["name"],
        **options.model_dump(),
    )


def _require_known(
    tx: Transaction,
    capabilities: Capabilities,
    place: tuple[str, str, str | None],
    arguments: Mapping[str, str],
) -> None:
    """Raise Problem for an argument that no spider of *place* knows.

    That is a provider, a scheme and maybe an operation.
    """
    if BASE_URL in arguments:
        # Whoever may say where a spider reads may say who is sent the provider's secrets.
        said = f"{BASE_URL} is the provider's own; it is said in its file, or in the environment"
        raise Problem(422, f"{said}.", errors=[(f"body.arguments.{BASE_URL}", said)])
    provider, scheme, operation = place
    operations = scheme_operations(tx, provider, scheme)
    asked = [found for found in operations if operation in (None, found["name"])]
    if not asked or any(found["executor"] == "external" for found in asked):
        return
    try:
        capabilities.require_known(f"{provider}/{scheme}", asked, arguments)
    except NotFound as unknown:
        raise Problem(422, str(unknown), errors=[("body.arguments", str(unknown))]) from unknown


def _require_filled(arguments: Mapping[str, str]) -> None:
    """Raise Problem for an argument that a due time cannot fill in."""
    for name, template in arguments.items():
        if wrong := template_mistake(template, {DUE_AT: DUE_AT}):
            raise Problem(422, "an argument is wrong.", errors=[(f"body.arguments.{name}", wrong)])


@contextmanager
def _cron_errors() -> Iterator[None]:
    """What is wrong with a cron line is a field's fault."""
    try:
        yield
    except CronError as error:
        name = "timezone" if isinstance(error, TimeZoneError) else "cron"
        raise Problem(422, str(error), errors=[(f"body.{name}", str(error))]) from error
