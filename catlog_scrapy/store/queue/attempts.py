"""How an attempt ends: complete, fail, release, lost. Whoever is fenced off changes nothing."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.scheduling.backoff import Backoff
from catlog_scrapy.store.sql import Database, clean, lock_catalog, row, rows, run, stop_catalog

# An instance whose worker vanished so often takes its workers with it.
MOST_LOST = 3
# Seconds that an instance is put off for at most, whatever its source asks for.
LONGEST_WAIT = 86400.0


class AttemptName(NamedTuple):
    """One try at one instance: `<uuid>.<number>`."""

    instance: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.instance}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises NotFound."""
        instance, _, number = text.rpartition(".")
        try:
            return cls(UUID(instance), int(number))
        except ValueError as error:
            raise NotFound(f"{text!r} names no attempt; write INSTANCE.NUMBER.") from error


@dataclass
class Report:
    """What a worker says of its crawl, and what the promise "done means complete" is judged by.

    `accepted`, `rejected` and `dropped` count items, `given_up`, `ignored` and `responses`
    requests. `errors` are the first exceptions raised, `reasons` the first of what was given up,
    ignored or rejected, all in words; `raised` counts all exceptions. `cursor` is how far it read;
    it `went_on` from another one. `retry_after` how many seconds the source wants to be left alone.
    """

    reason: str = "finished"
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    given_up: int = 0
    ignored: int = 0
    responses: int = 0
    raised: int = 0
    errors: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    log: str | None = None
    cursor: str | None = None
    went_on: bool = False
    retry_after: float = 0.0

    def judge(self, limits: Mapping[str, Any], stored: int) -> tuple[str, str | None]:
        """The outcome and, where it is not `done`, the reason, under an attempt's *limits*.

        *stored* is how many rows of the attempt the database holds.
        """
        shortfall = self._shortfall(limits.get("tolerate", {}))
        least = limits.get("min_results", 1)
        if self.raised:
            more = f" (and {self.raised - 1} more)" if self.raised > 1 else ""
            first = self.errors[0] if self.errors else "an exception that nobody put in words"
            return "failed", f"{first}{more}"
        if self.reason != "finished":
            return "failed", f"the spider closed with {self.reason!r}, not 'finished'"
        # Of a source with nothing new, the cursor is the answer; from the beginning there is more.
        answers = self.accepted + (self.cursor is not None and self.went_on)
        if shortfall is None and answers < least:
            shortfall = (
                f"{self.accepted} results, at least {least} expected;"
                " the source is empty or its markup changed"
            )
        if shortfall is None and stored != self.accepted:
            shortfall = f"{self.accepted} results accepted, but {stored} stored"
        return ("incomplete", shortfall) if shortfall else ("done", None)

    def _shortfall(self, tolerate: Mapping[str, float]) -> str | None:
        """What is beyond what the operation tolerates; nothing is, unless it says so."""
        for name, what, count, others in (
            ("given_up", "requests given up", self.given_up, self.responses),
            ("ignored", "requests ignored", self.ignored, self.responses),
            ("rejected", "items rejected", self.rejected, self.accepted),
            ("dropped", "items dropped", self.dropped, self.accepted),
        ):
            # The project's own DropItem is intent, unless the operation limits it.
            tolerated = tolerate.get(name, 1.0 if name == "dropped" else 0)
            if beyond(count, count + others, tolerated):
                first = self.reasons.get(name)
                return f"{count} {what}, tolerated {tolerated}" + (
                    f"; the first: {first}" if first else ""
                )
        return None


def beyond(count: int, total: int, tolerated: float) -> bool:
    """Whether *count* of *total* is more than *tolerated*: an integer count, or a float share."""
    return count > (tolerated * total if isinstance(tolerated, float) else tolerated)


class Held(NamedTuple):
    """A locked catalog and a locked instance of it, joined with the attempt in question."""

    catalog: Mapping[str, Any]
    instance: Mapping[str, Any]


def complete(engine: Database, name: AttemptName, report: Report) -> str:
    """End an attempt whose spider has closed; its outcome, `done` only if all of it is stored.

    The last instance done makes its catalog `publishing`. Safe to repeat: an attempt that has
    ended answers with its outcome and nothing changes.
    """
    with engine.begin() as connection:
        # Counted before the catalog is locked: a million rows take a moment, and nobody else
        # writes rows of this attempt.
        counted = row(
            connection,
            """SELECT count(*) AS stored FROM catlog.catalog_operation_instance_result
               WHERE instance_id = :instance AND attempt = :number""",
            instance=name.instance,
            number=name.number,
        )
        held = hold(connection, name)
        if held.instance["outcome"]:
            return str(held.instance["outcome"])
        stored = counted["stored"] if counted else 0
        outcome, error = report.judge(held.instance["limits"], stored)
        return _close(connection, held, outcome, error, report)


def fail(
    engine: Database,
    name: AttemptName,
    error: str,
    *,
    outcome: str = "failed",
    report: Report | None = None,
) -> str:
    """End an attempt that cannot be completed, for the reason *error*; its outcome.

    *outcome* is `failed`, `timed_out`, `lost` or `cancelled`; the last is taken for `lost` where
    the catalog goes on: its worker only believed that it had to stop. Safe to repeat.
    """
    with engine.begin() as connection:
        held = hold(connection, name)
        if held.instance["outcome"]:
            return str(held.instance["outcome"])
        return _close(connection, held, outcome, error, report or Report())


def release(
    engine: Database,
    name: AttemptName,
    report: Report | None = None,
    *,
    error: str = "released: its worker stopped",
) -> str:
    """Give an attempt back unfinished; it costs the catalog no error. *error* says why."""
    return fail(engine, name, error, outcome="released", report=report)


def lose_former(engine: Engine, node: str) -> int:
    """End what a former process of *node* left running; how many. It must be gone for good."""
    with engine.connect() as connection:
        left = rows(
            connection,
            """SELECT i.id, i.attempt FROM catlog.catalog_scheme_operation_instance i
               WHERE i.node = :node""",
            node=node,
        )
    for instance in left:
        name = AttemptName(instance["id"], instance["attempt"])
        fail(engine, name, f"its node {node} went down", outcome="lost")
    return len(left)


def close_lost(connection: Connection, held: Held) -> None:
    """End a locked attempt whose lease expired."""
    if held.instance["late"]:
        _close(connection, held, "timed_out", "it ran past its time limit", Report())
    else:
        node = held.instance["node"]
        _close(connection, held, "lost", f"its worker on {node} vanished", Report())


def hold(connection: Connection, name: AttemptName) -> Held:
    """Lock the instance of an attempt, its catalog first. Raises NotFound."""
    found = row(
        connection,
        "SELECT catalog_id FROM catlog.catalog_scheme_operation_instance WHERE id = :id",
        id=name.instance,
    )
    if found is None:
        raise NotFound(f"no attempt {name}.")
    catalog = lock_catalog(connection, found["catalog_id"])
    instance = row(
        connection,
        """SELECT i.*, a.outcome, a.limits, a.attempt AS asked
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = :number
           WHERE i.id = :id FOR NO KEY UPDATE OF i""",
        id=name.instance,
        number=name.number,
    )
    if instance is None:
        raise NotFound(f"no attempt {name}.")
    return Held(catalog, instance)


def _close(
    connection: Connection, held: Held, outcome: str, error: str | None, report: Report
) -> str:
    """Write down how the attempt ended, and move its instance and catalog on; the outcome."""
    catalog, instance = held
    if instance["state"] == "cancelled":
        outcome, error = "cancelled", catalog["error"]
    elif outcome == "cancelled":
        outcome = "lost"
    run(
        connection,
        """UPDATE catlog.instance_attempt SET outcome = :outcome, error = :error,
               finished_at = clock_timestamp(), log = coalesce(:log, log),
               stats = CAST(:stats AS jsonb), accepted = :accepted, rejected = :rejected,
               dropped = :dropped, read_to = :cursor
           WHERE instance_id = :id AND attempt = :attempt""",
        id=instance["id"],
        attempt=instance["attempt"],
        outcome=outcome,
        error=clean(error) if error else None,
        log=report.log,
        stats=_json(report.stats),
        accepted=report.accepted,
        rejected=report.rejected,
        dropped=report.dropped,
        # What was given up, though tolerated, is for the next load to read.
        cursor=None if report.given_up or report.ignored else report.cursor,
    )
    match outcome:
        case "done":
            _move(connection, instance, "done", lost=0)
            _publish_if_last(connection, catalog)
        case "released":
            _move(connection, instance, "new")
        case "cancelled":
            _move(connection, instance, "cancelled")
        case "lost" if instance["lost"] + 1 < MOST_LOST:
            _move(connection, instance, "new", lost=instance["lost"] + 1)
            # To the end of the queue: what takes its workers with it must not be every next one's
            # first, nor be lost three times over to one machine that keeps dying.
            run(
                connection,
                """UPDATE catlog.catalog_scheme_operation_instance SET position = DEFAULT
                   WHERE id = :id""",
                id=instance["id"],
            )
        case "lost":
            _move(connection, instance, "failed", lost=MOST_LOST)
            stop_catalog(connection, catalog, "failed", f"lost {MOST_LOST} times in a row: {error}")
        case _:
            _count_failure(connection, held, error or outcome, report.retry_after)
    return outcome


def _count_failure(connection: Connection, held: Held, error: str, least: float) -> None:
    """Let the instance wait, *least* seconds if that is no day, or its catalog fail."""
    catalog, instance = held
    limits = instance["limits"]
    errors = catalog["errors"] + 1
    failures = instance["failures"] + 1
    run(
        connection,
        "UPDATE catlog.catalog SET errors = :errors WHERE id = :id",
        id=catalog["id"],
        errors=errors,
    )
    if errors >= limits["max_errors"]:
        _move(connection, instance, "failed", failures=failures, lost=0)
        stop_catalog(connection, catalog, "failed", f"{errors} attempts failed; the last: {error}")
        return
    backoff = Backoff(limits["backoff_base"], limits["backoff_cap"])
    wait = max(min(least, LONGEST_WAIT), backoff.delay(failures, random.random()))
    _move(connection, instance, "new", failures=failures, lost=0, wait=wait)


def _move(
    connection: Connection,
    instance: Mapping[str, Any],
    state: str,
    *,
    failures: int | None = None,
    lost: int | None = None,
    wait: float = 0.0,
) -> None:
    """Give the slot back, in the given state; the instance is available in *wait* seconds."""
    run(
        connection,
        """UPDATE catlog.catalog_scheme_operation_instance
           SET state = :state, node = NULL, lease_expires_at = NULL, failures = :failures,
               lost = :lost, available_at = clock_timestamp() + make_interval(secs => :wait)
           WHERE id = :id""",
        id=instance["id"],
        state=state,
        failures=instance["failures"] if failures is None else failures,
        lost=instance["lost"] if lost is None else lost,
        wait=wait,
    )


def _publish_if_last(connection: Connection, catalog: Mapping[str, Any]) -> None:
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'publishing', publish_at = clock_timestamp()
           WHERE id = :id AND state = 'loading' AND NOT EXISTS (
               SELECT 1 FROM catlog.catalog_scheme_operation_instance
               WHERE catalog_id = :id AND state <> 'done')""",
        id=catalog["id"],
    )


def _json(stats: Mapping[str, Any]) -> str:
    """Scrapy's statistics as JSON; what is no number, truth or nothing is written as text."""
    plain = {
        clean(str(name)): value
        if value is None or isinstance(value, bool | int | float)
        else clean(str(value))
        for name, value in stats.items()
    }
    return orjson.dumps(
        {
            name: str(value) if isinstance(value, int) and abs(value) >= 2**63 else value
            for name, value in plain.items()
        }
    ).decode()
