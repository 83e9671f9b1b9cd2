"""Factories of schemes, catalogs and loads, in the words of the domain."""

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, results, starting
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.report import Report
from tests.support.waiting import WAIT_LIMIT_S

T = TypeVar("T")
Rows = Mapping[str, Any] | Sequence[tuple[str, Any]]

# The value of a record that the spider reports as unchanged.
UNCHANGED = None
# The value of a record that the source has removed.
GONE = object()
JSON_COLUMNS = ("arguments", "for_each", "standalone_arguments", "tolerate", "refresh")
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def sql(engine: Engine, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run a statement in a transaction of its own, and return its rows."""
    with engine.begin() as connection:
        answer = connection.execute(text(statement), values)
        return [dict(row) for row in answer.mappings()] if answer.returns_rows else []


def one(engine: Engine, statement: str, **values: Any) -> Any:
    """Return the only value of the only row."""
    [row] = sql(engine, statement, **values)
    [value] = row.values()
    return value


def day(number: float) -> dt.datetime:
    """Return the start of day *number* of the test calendar, which begins in the past."""
    return LONG_AGO + dt.timedelta(days=number)


def at_once(*works: Callable[[], T]) -> list[T]:
    """Run all *works* in threads that start at the same time, and return the results in order."""
    barrier = Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        barrier.wait(WAIT_LIMIT_S)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def given_a_provider(engine: Engine, name: str = "acme", *, max_running: int | None = None) -> UUID:
    return one(
        engine,
        """INSERT INTO catlog.provider AS p (name, max_running) VALUES (:name, :max_running)
           ON CONFLICT (name) DO UPDATE
               SET max_running = coalesce(excluded.max_running, p.max_running)
           RETURNING id""",
        name=name,
        max_running=max_running,
    )


def an_operation(
    name: str = "goods", *, kinds: Sequence[str] | None = None, **columns: Any
) -> dict[str, Any]:
    """Return the columns of an operation and its kinds; it needs no results and no backoff."""
    given = {"spider": name, "min_results": 0, "backoff_base": 0.0, **columns}
    return {"name": name, "kinds": [name] if kinds is None else kinds, **given}


def given_a_scheme(
    engine: Engine,
    *operations: dict[str, Any],
    name: str = "goods",
    version: int = 1,
    provider: str = "acme",
    max_errors: int = 5,
    includes: Sequence[str] = (),
    after: str | None = None,
) -> UUID:
    """Insert a version of a scheme and retire the former; the default operation is `goods`."""
    provider_id = given_a_provider(engine, provider)
    sql(
        engine,
        """UPDATE catlog.catalog_scheme SET retired_at = clock_timestamp()
           WHERE provider_id = :provider AND name = :name AND retired_at IS NULL""",
        provider=provider_id,
        name=name,
    )
    scheme: UUID = one(
        engine,
        """INSERT INTO catlog.catalog_scheme
               (provider_id, name, version, max_errors, includes, after)
           VALUES (:provider, :name, :version, :max_errors, CAST(:includes AS jsonb), :after)
           RETURNING id""",
        provider=provider_id,
        name=name,
        version=version,
        max_errors=max_errors,
        includes=_json(list(includes)),
        after=after,
    )
    for operation in operations or (() if includes else (an_operation(),)):
        _add_operation(engine, scheme, dict(operation))
    return scheme


def _add_operation(engine: Engine, scheme: UUID, columns: dict[str, Any]) -> None:
    kinds = columns.pop("kinds")
    values = {
        name: _json(value) if name in JSON_COLUMNS else value for name, value in columns.items()
    }
    operation = one(
        engine,
        f"""INSERT INTO catlog.catalog_scheme_operation (scheme_id, {", ".join(values)})
            VALUES (:scheme, {", ".join(f":{name}" for name in values)}) RETURNING id""",
        scheme=scheme,
        **values,
    )
    for kind in kinds:
        sql(
            engine,
            """INSERT INTO catlog.kind (operation_id, name, key, fields)
               VALUES (:operation, :kind, '["id"]', '[]')""",
            operation=operation,
            kind=kind,
        )
        given_a_partition(engine, kind)


def given_a_partition(engine: Engine, kind: str) -> None:
    sql(
        engine,
        f"""CREATE TABLE IF NOT EXISTS catlog.record_{kind}
            PARTITION OF catlog.record FOR VALUES IN ('{kind}')""",
    )


def given_a_waiting_catalog(
    engine: Engine,
    *,
    scheme: str = "goods",
    provider: str = "acme",
    version: int | None = None,
    as_of: float | None = None,
    arguments: Mapping[str, str] | None = None,
    **given: Any,
) -> UUID:
    """Insert a waiting catalog; *as_of* is a day, *version* the current version by default."""
    with engine.begin() as connection:
        found = connection.execute(
            text(
                """SELECT s.id, s.provider_id, s.name, s.includes FROM catlog.catalog_scheme s
                   JOIN catlog.provider p ON p.id = s.provider_id
                   WHERE p.name = :provider AND s.name = :scheme
                     AND coalesce(s.version = :version, s.retired_at IS NULL)"""
            ),
            {"provider": provider, "scheme": scheme, "version": version},
        )
        catalog = catalogs.insert_catalog(
            connection,
            catalogs.SchemeVersion(*found.one()),
            arguments=arguments or {},
            origin=given.pop("origin", "load"),
            **given,
        )
        assert catalog
        if as_of is not None:
            connection.execute(
                text("UPDATE catlog.catalog SET as_of = :as_of WHERE id = :id"),
                {"as_of": day(as_of), "id": catalog},
            )
    return catalog


def given_a_catalog(engine: Engine, **given: Any) -> UUID:
    """Insert and start a catalog."""
    catalog = given_a_waiting_catalog(engine, **given)
    assert starting.start(engine, catalog)
    return catalog


def claim_of(engine: Engine, catalog: UUID, *, node: str = "node", lease: float = 60.0) -> Claim:
    """Claim the first instance of a catalog."""
    [claimed] = claim(engine, node, catalogs=[catalog], lease=lease)
    return claimed


def claim_all(engine: Engine, catalog: UUID) -> list[Claim]:
    """Claim all instances of a catalog; return the claims by operation and part."""
    claims = claim(engine, "node", limit=1000, catalogs=[catalog])
    return sorted(claims, key=lambda claimed: (claimed.operation, claimed.part))


def send(engine: Engine, claimed: Claim, rows: Rows, *, kind: str | None = None) -> int:
    """Store *rows*, `{key: value}` or pairs, for an attempt, and return their number."""
    pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
    send_lines(engine, claimed.attempt, kind or claimed.kinds[0]["name"], pairs)
    return len(pairs)


def send_lines(
    engine: Engine,
    attempt: AttemptName,
    kind: str,
    pairs: Iterable[tuple[str, Any]],
    first: int = 0,
) -> None:
    results.copy_batch(engine, lines(attempt, kind, pairs, first))


def lines(
    attempt: AttemptName, kind: str, pairs: Iterable[tuple[str, Any]], first: int = 0
) -> bytes:
    """Return rows in COPY's text format, numbered from *first*."""
    return "".join(
        f"{attempt.instance}\t{attempt.number}\t{seq}\t{kind}\t{key}\t{_data(value)}\n"
        for seq, (key, value) in enumerate(pairs, first)
    ).encode()


def deliver(
    engine: Engine,
    claimed: Claim,
    rows: Rows = (),
    cursor: str | None = None,
    *,
    resumed: bool = True,
) -> str:
    """Store *rows* for an attempt, complete it with *cursor*, and return the outcome."""
    accepted = send(engine, claimed, rows) if rows else 0
    report = Report(accepted=accepted, cursor=cursor, resumed=resumed)
    return attempts.complete(engine, claimed.attempt, report)


def load(
    engine: Engine,
    rows: Rows = (),
    *,
    parts: Mapping[str, Rows] | None = None,
    by_operation: Mapping[str, Rows] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Create, load and publish a catalog, and return its row.

    All of its instances are done, with *rows* or with the rows in *parts* or *by_operation*.
    """
    catalog = given_a_loaded_catalog(engine, rows, parts=parts, by_operation=by_operation, **given)
    assert publishing.publish(engine, catalog)
    return the_catalog(engine, catalog)


def given_a_loaded_catalog(
    engine: Engine,
    rows: Rows = (),
    *,
    parts: Mapping[str, Rows] | None = None,
    by_operation: Mapping[str, Rows] | None = None,
    **given: Any,
) -> UUID:
    """Create and load a catalog up to the state `publishing`."""
    catalog = given_a_catalog(engine, **given)
    for claimed in claim_all(engine, catalog):
        named = (parts or {}).get(claimed.part) or (by_operation or {}).get(claimed.operation)
        assert deliver(engine, claimed, named or rows) == "done"
    return catalog


def the_catalog(engine: Engine, catalog: UUID) -> dict[str, Any]:
    [found] = sql(engine, "SELECT * FROM catlog.catalog WHERE id = :id", id=catalog)
    return found


def state_of(engine: Engine, catalog: UUID) -> str:
    state: str = the_catalog(engine, catalog)["state"]
    return state


def instances_of(engine: Engine, catalog: UUID) -> list[dict[str, Any]]:
    """Return the instances of a catalog, by operation and part."""
    return sql(
        engine,
        """SELECT i.*, o.name AS operation FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           WHERE i.catalog_id = :id ORDER BY o.name, i.part""",
        id=catalog,
    )


def states_of(engine: Engine, catalog: UUID) -> list[str]:
    return [instance["state"] for instance in instances_of(engine, catalog)]


def the_attempt(engine: Engine, name: AttemptName) -> dict[str, Any]:
    [found] = sql(
        engine,
        "SELECT * FROM catlog.instance_attempt WHERE instance_id = :id AND attempt = :number",
        id=name.instance,
        number=name.number,
    )
    return found


def expire_lease(engine: Engine, claimed: Claim) -> None:
    """Set the end of an attempt's lease to a minute ago."""
    sql(
        engine,
        """UPDATE catlog.catalog_scheme_operation_instance
           SET lease_expires_at = clock_timestamp() - interval '1 minute' WHERE id = :id""",
        id=claimed.attempt.instance,
    )


def current(engine: Engine, kind: str = "goods", provider: str = "acme") -> dict[str, Any]:
    """Return the value of each current record of a kind, by key."""
    found = sql(
        engine,
        """SELECT r.key, r.data FROM catlog.record r
           JOIN catlog.provider p ON p.id = r.provider_id
           WHERE p.name = :provider AND r.kind = :kind AND r.removed_at IS NULL""",
        provider=provider,
        kind=kind,
    )
    return {record["key"]: record["data"]["value"] for record in found}


def history(engine: Engine, provider: str = "acme") -> list[dict[str, Any]]:
    """Return all states of all records by kind, key and time; the current `valid_to` is None."""
    return sql(
        engine,
        """SELECT kind, key, data -> 'value' AS value, valid_from, valid_to, change
           FROM (SELECT provider_id, kind, key, data, valid_from, valid_to, change
                 FROM catlog.record_version
                 UNION ALL
                 SELECT provider_id, kind, key, data, updated_at, NULL, NULL
                 FROM catlog.record WHERE removed_at IS NULL) AS states
           JOIN catlog.provider p ON p.id = states.provider_id
           WHERE p.name = :provider ORDER BY kind, key, valid_from""",
        provider=provider,
    )


def assert_consistent(states: list[dict[str, Any]]) -> None:
    """Assert that the states of a key have no overlaps, and that only the last may be current."""
    for _, group in itertools.groupby(states, lambda state: (state["kind"], state["key"])):
        of_one = list(group)
        assert all(state["valid_from"] < state["valid_to"] for state in of_one[:-1])
        last = of_one[-1]
        assert last["valid_to"] is None or (
            last["valid_from"] < last["valid_to"] and last["change"] == "removed"
        )
        for former, latter in itertools.pairwise(of_one):
            assert former["valid_to"] <= latter["valid_from"]
            if former["change"] == "changed":
                assert former["valid_to"] == latter["valid_from"]
                assert former["value"] != latter["value"]


def publish_again(engine: Engine, catalog: Any) -> None:
    """Publish a published catalog again, as after a crash of the publisher."""
    assert not publishing.publish(engine, catalog)
    sql(engine, "UPDATE catlog.catalog SET state = 'publishing' WHERE id = :id", id=catalog)
    assert publishing.publish(engine, catalog)


def _data(value: Any) -> str:
    if value is GONE:
        return "null"
    return r"\N" if value is UNCHANGED else _json({"value": value})


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
