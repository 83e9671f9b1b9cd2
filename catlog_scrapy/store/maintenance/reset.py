"""Reset of a scheme or an operation: the next load starts from nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.publishing.publications import next_time, record_publication
from catlog_scrapy.store.publishing.publish import PUBLISH_LOCK
from catlog_scrapy.store.publishing.scopes import read_sibling_numbers
from catlog_scrapy.store.queue.catalog_states import OPEN_STATES
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, run, scalar


@dataclass
class ResetCounts:
    """Kinds and numbers of rows that were, or would be, deleted.

    `scopes` hold the high-water marks. `catalogs` counts the catalogs that are marked as purged;
    they stay as history, and their due times become free.
    """

    kinds: tuple[str, ...] = ()
    records: int = 0
    versions: int = 0
    results: int = 0
    rejected: int = 0
    scopes: int = 0
    catalogs: int = 0


# The operation `w` of the scheme `v` is to be reset.
ASKED = "(v.name = :scheme AND (CAST(:operation AS text) IS NULL OR w.name = :operation))"

# The kinds that the reset operations write now, and those that no other operation ever wrote. Any
# other kind has moved to another operation, with its records.
KINDS = f"""
    SELECT k.name FROM catlog.kind k
    JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
    JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
    WHERE v.provider_id = :provider
    GROUP BY k.name
    HAVING bool_or({ASKED} AND v.retired_at IS NULL) OR bool_and({ASKED})
    ORDER BY k.name"""

# The reset operations that write or wrote a kind.
WRITERS = f"""
    SELECT DISTINCT v.name AS scheme, w.name AS operation FROM catlog.kind k
    JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
    JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
    WHERE v.provider_id = :provider AND k.name = :kind AND {ASKED}"""

# The scopes of former operations are deleted as well, if they wrote only these kinds.
SCOPES = f"""
    DELETE FROM catlog.scope s
    WHERE s.provider_id = :provider AND s.number <> ALL(CAST(:siblings AS int[])) AND EXISTS (
        SELECT 1 FROM catlog.kind k
        JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
        JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
        WHERE v.provider_id = s.provider_id AND v.name = s.scheme_name
          AND w.name = s.operation_name
        HAVING bool_or({ASKED}) OR bool_and(k.name = ANY(:kinds)))"""

OF_PROVIDER = "WHERE _provider = (SELECT number FROM catlog.provider WHERE id = :provider)"

ROWS = f"""
    DELETE FROM catlog.{{table}} r
    USING catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation w ON w.id = i.operation_id
    JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
    WHERE r.instance_id = i.id AND i.provider_id = :provider AND {ASKED}"""


def reset(
    engine: Engine, provider: str, scheme: str, operation: str | None = None, *, dry_run: bool
) -> ResetCounts:
    """Delete the records of all versions of a scheme, or of one of its operations.

    Also deletes their versions, high-water marks, results and rejected items. The catalogs stay as
    history and cannot be retried. With *dry_run* the rows are only counted. Raises NotFound, or
    NotPossible while a catalog of the scheme is open or a catalog of the provider is published.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        run(connection, "SET LOCAL statement_timeout = 0")
        values = _lock(connection, provider, scheme, operation)
        done = _reset(connection, values)
        if dry_run:
            transaction.rollback()
    return done


def _lock(
    connection: Connection, provider: str, scheme: str, operation: str | None
) -> dict[str, Any]:
    """Lock out publishers and new catalogs; return the parameters of all statements."""
    # A new catalog would resume from the cursors that are deleted here.
    schemes = rows(
        connection,
        """SELECT s.* FROM catlog.catalog_scheme s
           JOIN catlog.provider p ON p.id = s.provider_id
           WHERE p.name = :provider AND s.name = :scheme ORDER BY s.id FOR UPDATE OF s""",
        provider=provider,
        scheme=scheme,
    )
    if not schemes:
        raise NotFound(f"no scheme {provider}/{scheme}; see scrapy apply --check.")
    _require_operation(connection, schemes, f"{provider}/{scheme}", operation)
    values = {
        "provider": schemes[0]["provider_id"],
        "schemes": [found["id"] for found in schemes],
        "scheme": scheme,
        "operation": operation,
    }
    if not scalar(
        connection,
        "SELECT pg_try_advisory_xact_lock(:key, hashtext(CAST(:provider AS text)))",
        key=PUBLISH_LOCK,
        provider=str(values["provider"]),
    ):
        raise NotPossible(f"a catalog of {provider} is being published; try again in a moment.")
    catalogs = rows(
        connection,
        """SELECT id, state FROM catlog.catalog WHERE scheme_id = ANY(:schemes)
           ORDER BY id FOR NO KEY UPDATE""",
        **values,
    )
    for catalog in catalogs:
        if catalog["state"] in OPEN_STATES:
            raise NotPossible(
                f"catalog {catalog['id']} of {provider}/{scheme} is {catalog['state']}; let it end,"
                f" or scrapy cancel {str(catalog['id'])[:8]}."
            )
    return values


def _require_operation(
    connection: Connection,
    schemes: list[Mapping[str, Any]],
    title: str,
    operation: str | None,
) -> None:
    found = rows(
        connection,
        """SELECT DISTINCT name FROM catlog.catalog_scheme_operation
           WHERE scheme_id = ANY(:schemes) ORDER BY name""",
        schemes=[scheme["id"] for scheme in schemes],
    )
    names = [known["name"] for known in found]
    if not names:
        included = ", ".join(dict.fromkeys(name for s in schemes for name in s["includes"]))
        raise NotPossible(f"{title} has no records of its own; reset what it includes: {included}.")
    if operation and operation not in names:
        raise NotFound(f"{title} has no operation {operation!r}; it has {', '.join(names)}.")


def _reset(connection: Connection, values: Mapping[str, Any]) -> ResetCounts:
    kinds = [kind["name"] for kind in rows(connection, KINDS, **values)]
    done = ResetCounts(tuple(kinds))
    known = all_kinds(connection)
    siblings: set[int] = set()
    for kind in (known[name] for name in kinds):
        kept = _sibling_scopes(connection, kind.name, values)
        siblings |= kept
        done.records += run(
            connection,
            f"DELETE FROM {kind.table} {OF_PROVIDER} AND _scope <> ALL(CAST(:siblings AS int[]))",
            siblings=list(kept),
            **values,
        )
        # Each version has a record, which may be removed.
        done.versions += run(
            connection,
            f"""DELETE FROM {kind.versions_table} v {OF_PROVIDER} AND NOT EXISTS (
                    SELECT 1 FROM {kind.table} r WHERE r._id = v._id)""",
            **values,
        )
    # Readers may hold copies of the deleted records.
    if done.records:
        now = scalar(connection, f"SELECT {next_time(':provider')}", **values)
        record_publication(connection, values["provider"], kinds, None, now)
    done.results = run(connection, ROWS.format(table="catalog_operation_instance_result"), **values)
    done.rejected = run(connection, ROWS.format(table="rejected_result"), **values)
    done.scopes = run(connection, SCOPES, kinds=kinds, siblings=list(siblings), **values)
    run(
        connection,
        """DELETE FROM catlog.pruned_due_time u USING catlog.schedule d
           WHERE d.id = u.schedule_id AND d.provider_id = :provider AND d.scheme_name = :scheme""",
        **values,
    )
    # Free the due times, so that a backfill can create new catalogs for them.
    done.catalogs = run(
        connection,
        """UPDATE catlog.catalog SET purged_at = clock_timestamp(), schedule_id = NULL
           WHERE scheme_id = ANY(:schemes) AND state <> 'skipped'""",
        **values,
    )
    return done


def _sibling_scopes(connection: Connection, kind: str, values: Mapping[str, Any]) -> set[int]:
    """Return the scopes whose records of *kind* stay: those beside all reset operations."""
    provider = values["provider"]
    siblings = [
        read_sibling_numbers(connection, provider, writer["scheme"], writer["operation"], kind)
        for writer in rows(connection, WRITERS, kind=kind, **values)
    ]
    return set.intersection(*siblings)
