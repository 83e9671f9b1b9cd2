"""The states that one row of a resource had, newest first."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from catlog_scrapy.store.reading.pages import PageQuery, PageSource, read_page
from catlog_scrapy.store.views import time_travel


class RowState(NamedTuple):
    """What a row was, as JSON, and when; `change` says what ended that, `changed` or `removed`."""

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
    """The last *limit* states of a record that began before *before*, seen by *fields* alone.

    And when the earliest began, where there may be others before: two in which nothing that is seen
    differs are one.
    """
    found = time_travel.record_states(connection, kind, key, fields, before=before, limit=limit)
    states: list[RowState] = []
    for state in (RowState(**each) for each in found):
        last = states[-1] if states else None
        if last and (last.line, last.valid_from) == (state.line, state.valid_to):
            states[-1] = last._replace(valid_from=state.valid_from)
        else:
            states.append(state)
    return states, found[-1]["valid_from"] if len(found) == limit else None


def row_history(
    connection: Connection,
    then: PageSource,
    question: PageQuery,
    kinds: Sequence[str],
    *,
    before: dt.datetime | None,
    limit: int,
) -> tuple[list[RowState], dt.datetime | None]:
    """The states of a view's row at the last *limit* moments when anything it reads changed.

    And the earliest of those moments, where there may be others before: a state that began there
    may have begun still earlier. *then* shows the view as of a time.
    """
    moments = time_travel.change_times(connection, kinds, before=before, limit=limit)
    states: list[RowState] = []
    ended, absent = before, False
    for moment in moments:
        time_travel.set_as_of(connection, moment)
        page = read_page(connection, then, question)
        line = page.lines[0] if page.lines else None
        if line is None:
            absent = True
        elif states and not absent and states[-1].line == line:
            states[-1] = states[-1]._replace(valid_from=moment)
        else:
            change = "removed" if absent else "changed"
            states.append(RowState(line, moment, ended, change if ended else None))
            absent = False
        ended = moment
    return states, moments[-1] if len(moments) == limit else None
