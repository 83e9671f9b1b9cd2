"""History of one row of a resource: its states, newest first."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection

from catlog_scrapy.store.reading.page_query import PageQuery, PageSource
from catlog_scrapy.store.reading.pages import read_page
from catlog_scrapy.store.views import time_travel


class RowState(NamedTuple):
    """State of a row as JSON, with its time range.

    `change` says what ended the state: `changed`, `removed`, or None for the present state.
    """

    line: str
    valid_from: dt.datetime
    valid_to: dt.datetime | None
    change: str | None


def record_history(
    connection: Connection,
    kind: str,
    key: Mapping[str, Any],
    fields: Sequence[str],
    *,
    before: dt.datetime | None,
    limit: int,
) -> tuple[list[RowState], dt.datetime | None]:
    """Return the last *limit* states of a record that began before *before*.

    States that do not differ in *fields* are merged. The second value is the start of the earliest
    state if there may be earlier states.
    """
    found = time_travel.record_states(connection, kind, key, fields, before=before, limit=limit)
    states: list[RowState] = []
    for state in (RowState(**columns) for columns in found):
        last = states[-1] if states else None
        if last and (last.line, last.valid_from) == (state.line, state.valid_to):
            states[-1] = last._replace(valid_from=state.valid_from)
        else:
            states.append(state)
    return states, found[-1]["valid_from"] if len(found) == limit else None


def row_history(
    connection: Connection,
    as_of_source: PageSource,
    query: PageQuery,
    kinds: Sequence[str],
    *,
    before: dt.datetime | None,
    limit: int,
) -> tuple[list[RowState], dt.datetime | None]:
    """Return the states of a view's row at the last *limit* times when *kinds* changed.

    *as_of_source* shows the view as of an instant. The second value is the earliest of these times
    if there may be earlier times; a state that starts there may have started even earlier.
    """
    times = time_travel.change_times(connection, kinds, before=before, limit=limit)
    states: list[RowState] = []
    ended, absent = before, False
    for time in times:
        time_travel.set_as_of(connection, time)
        page = read_page(connection, as_of_source, replace(query, as_of=time))
        line = page.lines[0] if page.lines else None
        if line is None:
            absent = True
        elif states and not absent and states[-1].line == line:
            states[-1] = states[-1]._replace(valid_from=time)
        else:
            change = "removed" if absent else "changed"
            states.append(RowState(line, time, ended, change if ended else None))
            absent = False
        ended = time
    return states, times[-1] if len(times) == limit else None
