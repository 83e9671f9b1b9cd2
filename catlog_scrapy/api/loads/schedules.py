"""Routes that manage schedules."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints

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
from catlog_scrapy.api.state import State
from catlog_scrapy.api.strict_model import StrictModel
from catlog_scrapy.declarations.model import ScheduleName
from catlog_scrapy.scheduling.due import CronError, TimeZoneError
from catlog_scrapy.store.queue.schedules import changes
from catlog_scrapy.store.sql import Transaction

CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The schedule is created.",
        "headers": {
            "Location": {
                "description": "Path of the schedule.",
                "schema": {"type": "string"},
                "required": True,
            }
        },
    }
}

router = APIRouter(tags=["schedules"], responses=problem_responses(401, 403, 404, 409, 422))
ScheduleId = Annotated[UUID, Path(description="Id of the schedule.")]
MayChange = Annotated[Caller, Depends(permission("schedules", "change"))]
Cron = Annotated[
    str,
    StringConstraints(max_length=200),
    Field(description="Cron line with five fields: minute, hour, day of month, month, weekday."),
]
TimeZone = Annotated[Name, Field(description="IANA time zone of the cron line.")]
ScheduleArguments = Annotated[
    Arguments,
    Field(
        description="Arguments of the spiders, by name. `{due_at}` stands for the due time, such as"
        " `{due_at:%Y-%m-%d}`."
    ),
]
CatchUp = Annotated[
    Literal["latest", "none"],
    Field(description="Due times missed during an outage: load for the latest, or for none."),
]


class ScheduleChange(StrictModel):
    """Changes of a schedule; absent fields stay as they are."""

    cron: Cron = Field("", examples=["*/5 * * * *"])
    timezone: TimeZone = Field("UTC", examples=["Europe/Moscow"])
    arguments: ScheduleArguments = {}
    catch_up: CatchUp = "latest"
    enabled: bool = Field(True, description="Whether the schedule is in use.")


class NewSchedule(StrictModel):
    """Schedule to create. The database alone keeps it; no provider file declares it."""

    provider: Name = Field(description="Name of the provider.", examples=["tatneft"])
    scheme: Name = Field(description="Name of the scheme to load.", examples=["prices"])
    name: Annotated[ScheduleName, StringConstraints(max_length=200)] = Field(
        description="Name of the schedule, unique for the scheme.", examples=["hourly"]
    )
    cron: Cron = Field(examples=["0 * * * *"])
    timezone: TimeZone = Field("UTC", examples=["Europe/Moscow"])
    arguments: ScheduleArguments = {}
    catch_up: CatchUp = "latest"


class ScheduleState(BaseModel):
    """Id of a schedule; `GET /schedules/{id}` returns the whole schedule."""

    id: UUID = Field(description="Id of the schedule.")


class DueTimes(BaseModel):
    """Next due times of a schedule, as if it were not paused."""

    due_times: list[dt.datetime] = Field(description="Due times in order, with UTC offset.")


@router.post(
    "/schedules",
    status_code=201,
    response_model=ScheduleState,
    summary="Create a schedule",
    responses=CREATED,
    openapi_extra=IDEMPOTENT,
)
def create_schedule(
    request: Request,
    schedule: NewSchedule,
    state: State,
    caller: Annotated[Caller, Depends(permission("schedules", "create"))],
) -> Response:
    """Create a schedule, which starts a load of a scheme at each due time."""

    def work(tx: Transaction) -> ChangeResult:
        require_known_arguments(
            tx,
            state,
            schedule.arguments,
            provider=schedule.provider,
            scheme=schedule.scheme,
        )
        require_valid_templates(schedule.arguments)
        with _cron_problems():
            id_ = changes.create(tx, **schedule.model_dump())
        return ChangeResult(
            f"schedule {id_}",
            {"id": str(id_)},
            status=201,
            detail=schedule.model_dump(),
            headers={"Location": f"{PREFIX}/schedules/{id_}"},
        )

    body = schedule.model_dump()
    return run_change(state.engine, request, caller, "schedules:create", work, body=body)


@router.patch(
    "/schedules/{id}",
    response_model=ScheduleState,
    response_description="The schedule is changed.",
    summary="Change a schedule that no provider file declares",
    openapi_extra=IDEMPOTENT,
)
def change_schedule(
    request: Request,
    schedule_id: Annotated[UUID, Path(alias="id", description="Id of the schedule.")],
    schedule: ScheduleChange,
    state: State,
    caller: MayChange,
) -> Response:
    """Change the given fields of a schedule.

    A schedule of a provider file can only be paused and resumed here; change it in its file.
    """
    changed = schedule.model_dump(exclude_unset=True)

    def work(tx: Transaction) -> ChangeResult:
        if schedule.arguments:
            provider, scheme = changes.provider_and_scheme(tx, schedule_id)
            require_known_arguments(tx, state, schedule.arguments, provider=provider, scheme=scheme)
            require_valid_templates(schedule.arguments)
        with _cron_problems():
            changes.change(tx, schedule_id, changed)
        return ChangeResult(f"schedule {schedule_id}", {"id": str(schedule_id)}, detail=changed)

    return run_change(state.engine, request, caller, "schedules:change", work, body=changed)


@router.post(
    "/schedules/{schedule_id}/pause",
    response_model=ScheduleState,
    response_description="The schedule is paused.",
    summary="Pause a schedule",
    openapi_extra=IDEMPOTENT,
)
def pause_schedule(
    request: Request, schedule_id: ScheduleId, state: State, caller: MayChange
) -> Response:
    """Stop a schedule until it is resumed. Safe to repeat."""

    def work(tx: Transaction) -> ChangeResult:
        changes.pause(tx, schedule_id)
        return ChangeResult(
            f"schedule {schedule_id}", {"id": str(schedule_id)}, detail={"to": "pause"}
        )

    return run_change(state.engine, request, caller, "schedules:change", work)


@router.post(
    "/schedules/{schedule_id}/resume",
    response_model=ScheduleState,
    response_description="The schedule is resumed.",
    summary="Resume a schedule",
    openapi_extra=IDEMPOTENT,
)
def resume_schedule(
    request: Request, schedule_id: ScheduleId, state: State, caller: MayChange
) -> Response:
    """Continue a paused schedule with its next due time. Safe to repeat."""

    def work(tx: Transaction) -> ChangeResult:
        changes.resume(tx, schedule_id)
        return ChangeResult(
            f"schedule {schedule_id}", {"id": str(schedule_id)}, detail={"to": "resume"}
        )

    return run_change(state.engine, request, caller, "schedules:change", work)


@router.get(
    "/schedules/{schedule_id}/due_times",
    response_model=DueTimes,
    response_description="The due times, in order.",
    summary="List the next due times of a schedule",
    dependencies=[Depends(permission("schedules", "read"))],
)
def due_times(
    schedule_id: ScheduleId,
    state: State,
    count: Annotated[int, Query(ge=1, le=100, description="Number of due times.")] = 10,
) -> dict[str, Any]:
    """Return the next due times, also those of a paused schedule."""
    return {"due_times": changes.preview(state.engine, schedule_id, count)}


@contextmanager
def _cron_problems() -> Iterator[None]:
    """Turn CronError into a problem that names the invalid field."""
    try:
        yield
    except CronError as error:
        field = "timezone" if isinstance(error, TimeZoneError) else "cron"
        raise Problem(422, str(error), errors=[(f"body.{field}", str(error))]) from error
