"""Checks of the `[[schedule]]` tables."""

import datetime as dt

from catlog_scrapy.declarations.check_context import CheckContext, scheme_operations
from catlog_scrapy.declarations.model import ScheduleTable
from catlog_scrapy.declarations.source import Location, suggest
from catlog_scrapy.scheduling.argument_templates import DUE_AT
from catlog_scrapy.scheduling.due import CronError, TimeZoneError, next_due
from catlog_scrapy.store.definitions import ScheduleDefinition

# Any instant serves to try out a cron line.
SAMPLE_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def check_schedules(context: CheckContext) -> list[ScheduleDefinition]:
    """Check the file's schedules and build their definitions."""
    seen: set[tuple[str, str]] = set()
    for index, schedule in enumerate(context.file.schedule):
        location: Location = ("schedule", index)
        if (schedule.scheme, schedule.name) in seen:
            context.add_mistake(
                location, "the scheme has two schedules of this name; rename one of the two"
            )
        seen.add((schedule.scheme, schedule.name))
        context.check_scheme_name((*location, "scheme"), schedule.scheme)
        _check_cron(context, location, schedule)
        arguments = (*location, "arguments")
        context.check_templates(arguments, schedule.arguments, {DUE_AT: DUE_AT})
        context.check_not_secret(arguments, schedule.arguments)
        _check_arguments(context, arguments, schedule)
    return [ScheduleDefinition(**schedule.model_dump()) for schedule in context.file.schedule]


def _check_cron(context: CheckContext, location: Location, schedule: ScheduleTable) -> None:
    try:
        next_due(schedule.cron, schedule.timezone, SAMPLE_TIME)
    except CronError as error:
        field = "timezone" if isinstance(error, TimeZoneError) else "cron"
        context.add_mistake((*location, field), str(error))


def _check_arguments(context: CheckContext, location: Location, schedule: ScheduleTable) -> None:
    """Check that some operation of the scheme takes each argument.

    Arguments of external executors and of included schemes are not known here.
    """
    scheme = context.schemes.get(schedule.scheme)
    if scheme is None or scheme.includes:
        return
    operations = scheme_operations(scheme)
    if any(operation.executor == "external" for operation in operations):
        return
    known = context.known_arguments(operation.spider_name for operation in operations)
    known.add("part")
    for operation in operations:
        kind = context.kinds.get(str(operation.for_each))
        known |= {name for name, _ in kind.fields} if kind else set()
    for name in schedule.arguments:
        if name not in known:
            context.add_mistake(
                (*location, name), f'unknown argument "{name}"; {suggest(name, known)}'
            )
