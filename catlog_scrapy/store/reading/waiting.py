"""Queries of the waiting instances, with the reasons."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from catlog_scrapy.store.sql import rows


def next_attempts(engine: Engine, instances: Collection[UUID]) -> list[str]:
    """Return a line for each of *instances* that waits for its next attempt: what, and how long."""
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT p.name || '/' || s.name || '/' || o.name AS title, i.part,
                   catlog.wait_reason(i.id) AS waits
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = i.provider_id
               WHERE i.id = ANY(CAST(:instances AS uuid[])) AND i.state = 'new'
                 AND i.available_at > clock_timestamp()
               ORDER BY i.available_at""",
            instances=[str(instance) for instance in instances],
        )
    return [f"{f['title']} {f['part']}".rstrip() + f": {f['waits']}" for f in found if f["waits"]]


def waiting_work(engine: Engine) -> list[Mapping[str, Any]]:
    """Return what waits, by provider and tags: `provider`, `tags`, `instances` and the `reason`.

    The reason is that of the instance which is next to run, None if a worker may take it now.
    """
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT p.name AS provider, o.executor, o.tags, count(*) AS instances,
                   catlog.wait_reason((array_agg(i.id ORDER BY i.available_at, i.priority DESC,
                       i.position))[1]) AS reason
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               JOIN catlog.provider p ON p.id = i.provider_id
               WHERE i.state = 'new' GROUP BY p.name, o.executor, o.tags ORDER BY 1, 2, 3""",
        )


def unclaimable_operations(
    engine: Engine, catalogs: Sequence[UUID], tags: Collection[str]
) -> list[str]:
    """Return a line for each operation of *catalogs* that waits for another kind of worker.

    A worker with *tags* can claim neither an operation of external executors nor an operation with
    further tags.
    """
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT DISTINCT p.name || '/' || s.name || '/' || o.name AS title, o.executor, o.tags
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = i.provider_id
               WHERE i.catalog_id = ANY(CAST(:catalogs AS uuid[])) AND i.state = 'new'
                 AND (o.executor = 'external' OR NOT o.tags <@ to_jsonb(CAST(:tags AS text[])))
               ORDER BY 1""",
            catalogs=[str(catalog) for catalog in catalogs],
            tags=list(tags),
        )
    return [_unclaimable(**operation) for operation in found]


def provider_limits(engine: Engine, catalogs: Sequence[UUID]) -> list[str]:
    """Return a line for each provider of *catalogs* that runs as many instances as it may."""
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT p.name AS provider, p.max_running, (
                   SELECT count(*) FROM catlog.catalog_scheme_operation_instance r
                   WHERE r.provider_id = p.id AND r.node IS NOT NULL) AS running
               FROM catlog.provider p
               WHERE p.max_running IS NOT NULL AND EXISTS (
                   SELECT 1 FROM catlog.catalog_scheme_operation_instance i
                   WHERE i.catalog_id = ANY(CAST(:catalogs AS uuid[])) AND i.state = 'new'
                     AND i.provider_id = p.id AND i.available_at <= clock_timestamp())
               ORDER BY 1""",
            catalogs=[str(catalog) for catalog in catalogs],
        )
    return [
        "waits: {running} of {max_running} running for {provider}".format(**limit)
        for limit in found
        if limit["running"] >= limit["max_running"]
    ]


def _unclaimable(title: str, executor: str, tags: list[str]) -> str:
    if executor == "external":
        of_tags = f" with the tags {', '.join(tags)}" if tags else ""
        return f"{title}: waits for an external executor{of_tags}; see docs/howto/executor.md"
    return (
        f"{title}: waits for a worker with the tags {', '.join(tags)}; start one, or run this"
        f" command with -s CATLOG_TAGS={','.join(tags)}"
    )
