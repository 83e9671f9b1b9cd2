"""Factories of schemes, catalogs and loads, in the words of the domain."""

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.records.hashing import record_id
from catlog_scrapy.records.key_texts import key_text
from catlog_scrapy.records.validation import REMOVED_DATA
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, copy_format, results, starting
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.record_tables.altering import create_tables
from catlog_scrapy.store.record_tables.layout import json_value
from catlog_scrapy.store.schemes import all_kinds
from tests.support.waiting import WAIT_LIMIT_S

T = TypeVar("T")
Rows = Mapping[str, Any] | Sequence[tuple[str, Any]]

# The value of a record that the spider reports as unchanged.
UNCHANGED = None
# The value of a record that the source has removed.
GONE = object()
JSON_COLUMNS = ("arguments", "for_each", "standalone_arguments", "tags", "tolerate", "refresh")
# Fields of all kinds of these factories.
FIELDS = (("id", "text"), ("value", "jsonb"))
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
               VALUES (:operation, :kind, '["id"]', CAST(:fields AS jsonb))""",
            operation=operation,
            kind=kind,
            fields=_json([{"name": name, "type": type_} for name, type_ in FIELDS]),
        )
        given_record_tables(engine, kind)


def given_a_schedule(
    engine: Engine,
    *,
    name: str = "nightly",
    scheme: str = "goods",
    cron: str = "0 3 * * *",
    due: str = "now()",
    **columns: Any,
) -> UUID:
    """Insert a schedule that is due at the time of the SQL expression *due*."""
    values = {"scheme_name": scheme, "name": name, "cron": cron, **columns}
    schedule: UUID = one(
        engine,
        f"""INSERT INTO catlog.schedule (provider_id, next_due_at, {", ".join(values)})
            VALUES (:provider, {due}, {", ".join(f":{column}" for column in values)})
            RETURNING id""",
        provider=given_a_provider(engine),
        **values,
    )
    return schedule


def given_record_tables(engine: Engine, kind: str) -> None:
    with engine.begin() as connection:
        create_tables(connection, [KindDefinition(kind, ("id",), FIELDS)])


def given_fields(
    engine: Engine,
    fields: Mapping[str, str],
    *,
    key: Sequence[str] = ("id",),
    kinds: Sequence[str] | None = None,
    foreign: Sequence[str] = (),
    untracked: Sequence[str] = (),
) -> None:
    """Give all kinds, or *kinds*, other fields and their columns; *foreign* kinds are declared."""
    sql(
        engine,
        """UPDATE catlog.kind SET fields = CAST(:fields AS jsonb), key = CAST(:key AS jsonb),
               foreign_type = name = ANY(CAST(:foreign AS text[])),
               untracked = CAST(:untracked AS jsonb)
           WHERE CAST(:kinds AS text[]) IS NULL OR name = ANY(CAST(:kinds AS text[]))""",
        fields=_json([{"name": name, "type": type_} for name, type_ in fields.items()]),
        key=_json(list(key)),
        kinds=kinds and list(kinds),
        foreign=list(foreign),
        untracked=_json(list(untracked)),
    )
    with engine.begin() as connection:
        create_tables(connection, all_kinds(connection).values())


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
    """Insert a waiting catalog; *version* is the current version by default.

    With *as_of*, a day, its data is valid for that time, as if its arguments had a due time.
    """
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
                text("UPDATE catlog.catalog SET as_of = :as_of, due_at = :as_of WHERE id = :id"),
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
    send_rows(engine, claimed.attempt, kind or claimed.kinds[0]["name"], pairs)
    return len(pairs)


def send_rows(
    engine: Engine,
    attempt: AttemptName,
    kind: str,
    pairs: Iterable[tuple[str, Any]],
    first: int = 0,
) -> None:
    results.copy_batch(
        engine, rows_for_copy(attempt, provider_of(engine, attempt), kind, pairs, first)
    )


def provider_of(engine: Engine, attempt: AttemptName) -> UUID:
    provider: UUID = one(
        engine,
        "SELECT provider_id FROM catlog.catalog_scheme_operation_instance WHERE id = :id",
        id=attempt.instance,
    )
    return provider


def load_records(
    engine: Engine, records: Sequence[Mapping[str, Any]], **given: Any
) -> dict[str, Any]:
    """Load and publish *records* with any fields of the only kind; return the catalog's row."""
    catalog = given_a_catalog(engine, **given)
    send_records(engine, catalog, records)
    assert publishing.publish(engine, catalog)
    return the_catalog(engine, catalog)


def send_records(engine: Engine, catalog: UUID, records: Sequence[Mapping[str, Any]]) -> None:
    """Complete the only instance of *catalog* with *records*."""
    claimed = claim_of(engine, catalog)
    [kind] = claimed.kinds
    rows = [(kind["name"], _key_of(kind, record), orjson.dumps(record), None) for record in records]
    batch = bytearray()
    untracked = {kind["name"]: kind["untracked"]}
    prefix = copy_format.RowPrefix(claimed.attempt, claimed.provider_id, untracked)
    copy_format.write_rows(batch, prefix, 0, rows)
    results.copy_batch(engine, batch)
    assert attempts.complete(engine, claimed.attempt, Report(accepted=len(rows))) == "done"


def _key_of(kind: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    types = {field["name"]: field["type"] for field in kind["fields"]}
    names = kind["key"]
    return key_text([record[name] for name in names], [types[name] for name in names])


def rows_for_copy(
    attempt: AttemptName,
    provider: UUID,
    kind: str,
    pairs: Iterable[tuple[str, Any]],
    first: int = 0,
) -> bytearray:
    """Return rows in COPY's binary format, numbered from *first*."""
    batch = bytearray()
    rows = ((kind, key, _data(key, value), None) for key, value in pairs)
    copy_format.write_rows(batch, copy_format.RowPrefix(attempt, provider), first, rows)
    return batch


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


def given_a_record(
    engine: Engine,
    kind: str,
    data: Mapping[str, Any],
    *,
    provider: str = "acme",
    former: Mapping[str, Any] | None = None,
    removed: bool = False,
) -> None:
    """Insert a record of an applied kind, current since 2026-01-02, and its former state."""
    with engine.begin() as connection:
        definition = all_kinds(connection)[kind]
        found = sql(
            engine, "SELECT id, number FROM catlog.provider WHERE name = :name", name=provider
        )
        key = key_text([data[name] for name in definition.key], definition.key_types)
        meta = {
            "_id": record_id(found[0]["id"], key),
            "_provider": found[0]["number"],
            "_catalog": 0,
        }
        _insert_state(
            connection,
            definition.table,
            definition,
            data,
            {
                **meta,
                "_scope": 0,
                "_as_of": day(0),
                "_created_at": day(0),
                "_updated_at": day(1),
                "_removed_at": day(2) if removed else None,
            },
        )
        if former is not None:
            ended = {"_valid_from": day(0), "_valid_to": day(1), "_change": "changed"}
            _insert_state(
                connection, definition.versions_table, definition, former, {**meta, **ended}
            )


def given_copies(engine: Engine, kind: str, count: int) -> None:
    """Insert *count* copies of a record of *kind*, with ids from 1000 on."""
    columns = one(
        engine,
        """SELECT string_agg(format('%I', attname), ', ') FROM pg_attribute
           WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
             AND attname NOT IN ('id', '_id')""",
        table=f"records.{kind}",
    )
    sql(
        engine,
        f"""INSERT INTO records.{kind} ({columns}, id, _id)
            SELECT {columns}, n, gen_random_uuid()
            FROM (SELECT {columns} FROM records.{kind} LIMIT 1) AS r,
                generate_series(1000, 999 + :count) AS n""",
        count=count,
    )


def _insert_state(
    connection: Connection,
    table: str,
    kind: KindDefinition,
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> None:
    columns = {f'"{name}"': json_value(name, type_) for name, type_ in kind.fields}
    if kind.foreign:
        columns["data"] = "data - CAST(:fields AS text[])"
    connection.execute(
        text(
            f"""INSERT INTO {table} ({", ".join([*columns, *meta])})
                SELECT {", ".join([*columns.values(), *(f":{name}" for name in meta)])}
                FROM (SELECT CAST(:data AS jsonb) AS data) AS given"""
        ),
        {**meta, "data": _json(data), "fields": [name for name, _ in kind.fields]},
    )


def current(engine: Engine, kind: str = "goods", provider: str = "acme") -> dict[str, Any]:
    """Return the value of each current record of a kind, by key."""
    found = sql(
        engine,
        """SELECT key, data FROM catlog.records(ARRAY[:kind])
           WHERE provider = :provider AND removed_at IS NULL""",
        provider=provider,
        kind=kind,
    )
    return {record["key"]: record["data"]["value"] for record in found}


def history(engine: Engine, provider: str = "acme") -> list[dict[str, Any]]:
    """Return all states of all records by kind, key and time; the current `valid_to` is None."""
    return sql(
        engine,
        """SELECT kind, key, data -> 'value' AS value, valid_from, valid_to, change
           FROM (SELECT provider, kind, key, data, valid_from, valid_to, change
                 FROM catlog.record_versions()
                 UNION ALL
                 SELECT provider, kind, key, data, updated_at, NULL, NULL
                 FROM catlog.records() WHERE removed_at IS NULL) AS states
           WHERE provider = :provider ORDER BY kind, key, valid_from""",
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


def _data(key: str, value: Any) -> bytes | None:
    if value is GONE:
        return REMOVED_DATA
    return None if value is UNCHANGED else orjson.dumps({"id": key, "value": value})


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
