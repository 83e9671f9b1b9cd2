"""Attempts of external executors: owner, lock and state."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.sql import row, run


def attempt_not_found(name: AttemptName) -> NotFound:
    """Return the error for an attempt that the owner never had, or that was deleted meanwhile."""
    return NotFound(f"you have no attempt {name}.")


def require_owner(connection: Connection, name: AttemptName, owner: str) -> None:
    """Raise NotFound unless *owner* claimed the attempt."""
    found = row(
        connection,
        "SELECT node FROM catlog.instance_attempt WHERE instance_id = :id AND attempt = :number",
        id=name.instance,
        number=name.number,
    )
    # The worker's name never has a slash; the owner's may have one.
    if found is None or found["node"].rpartition("/")[0] != owner:
        raise attempt_not_found(name)


def lock_outcome(connection: Connection, name: AttemptName) -> None:
    """Lock the attempt, so that its outcome stays as it is to the end of the transaction."""
    run(
        connection,
        """SELECT 1 FROM catlog.instance_attempt
           WHERE instance_id = :instance AND attempt = :number FOR NO KEY UPDATE""",
        instance=name.instance,
        number=name.number,
    )


@dataclass(frozen=True)
class AttemptState:
    """State of an attempt: how it ended, or what keeps it running.

    `is_open` says that the attempt is its instance's latest and that its catalog is loading.
    """

    outcome: str | None
    error: str | None
    read_from: str | None
    limits: dict[str, Any]
    mode: str
    is_late: bool
    is_open: bool
    catalog: str


def read_state(connection: Connection, name: AttemptName) -> AttemptState:
    """Read the state of an attempt. Raises NotFound."""
    found = row(
        connection,
        """SELECT a.outcome, a.error, a.read_from, a.limits, o.mode,
               a.deadline_at < clock_timestamp() AS is_late,
               i.state = 'running' AND i.attempt = a.attempt AND c.state = 'loading' AS is_open,
               c.state AS catalog
           FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           JOIN catlog.catalog c ON c.id = i.catalog_id
           WHERE a.instance_id = :instance AND a.attempt = :number""",
        instance=name.instance,
        number=name.number,
    )
    if found is None:
        raise attempt_not_found(name)
    return AttemptState(**found)


def require_open(connection: Connection, name: AttemptName) -> None:
    """Raise NotPossible if the attempt has ended, or must end."""
    state = read_state(connection, name)
    if state.outcome:
        raise NotPossible(ended_message(name, state.outcome, state.error))
    if not state.is_open:
        raise NotPossible(f"the catalog of {name} is {state.catalog}; stop, and release it.")
    if state.is_late:
        raise NotPossible(f"{name} is past its deadline; stop, and release it.")


def ended_message(name: AttemptName, outcome: str, error: str | None) -> str:
    """Return the message that refuses an attempt with an outcome."""
    return f"{name} has ended: {outcome}{f' ({error})' if error else ''}; claim another attempt."
