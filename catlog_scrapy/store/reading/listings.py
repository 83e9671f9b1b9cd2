"""Listings for readers over HTTP: one SELECT for each table of loads."""

from dataclasses import dataclass

from catlog_scrapy.store.reading.page_query import OrderTerm


@dataclass(frozen=True)
class Listing:
    """A SELECT under a path, with a description in one line.

    `key` names the columns that identify a row; `order` is unique, and newest first for rows with
    a creation time.
    """

    path: str
    about: str
    sql: str
    key: tuple[str, ...]
    order: tuple[OrderTerm, ...]


def _newest(column: str) -> tuple[OrderTerm, ...]:
    return OrderTerm(column, descending=True), OrderTerm("id", descending=True)


LISTINGS = (
    Listing(
        "providers",
        "Data providers.",
        """SELECT p.id, p.name, p.title, p.base_url, p.max_running, p.project,
               (SELECT count(*) FROM catlog.catalog_scheme_operation_instance i
                WHERE i.provider_id = p.id AND i.node IS NOT NULL) AS running
           FROM catlog.provider p""",
        ("id",),
        (OrderTerm("name"),),
    ),
    Listing(
        "catalog_schemes",
        "Catalog schemes by version. No catalogs are made of a retired version.",
        """SELECT s.id, p.name AS provider, s.name, s.version, s.max_errors, s.includes, s.after,
               s.retired_at
           FROM catlog.catalog_scheme s JOIN catlog.provider p ON p.id = s.provider_id""",
        ("id",),
        (OrderTerm("provider"), OrderTerm("name"), OrderTerm("version")),
    ),
    Listing(
        "catalog_scheme_operations",
        "Operations of schemes. A spider or an external executor runs an operation.",
        """SELECT o.id, o.scheme_id, p.name AS provider, s.name AS scheme, s.version, o.name,
               o.spider, o.executor, o.tags, o.arguments, o.for_each, o.mode, o.tolerate,
               o.min_results, o.timeout, o.keep, s.retired_at
           FROM catlog.catalog_scheme_operation o
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           JOIN catlog.provider p ON p.id = s.provider_id""",
        ("id",),
        (OrderTerm("provider"), OrderTerm("scheme"), OrderTerm("version"), OrderTerm("name")),
    ),
    Listing(
        "catalogs",
        "Catalogs: loads of a scheme, with their state and the changes that they published.",
        """SELECT c.id, c.number, p.name AS provider, s.name AS scheme, s.version, c.parent_id,
               d.name AS schedule, c.due_at, c.as_of, c.arguments, c.operation, c.is_full, c.origin,
               c.job, c.priority, c.state,
               CASE WHEN c.state IN ('waiting', 'loading', 'publishing')
                   THEN catlog.catalog_wait_reason(c.id) END AS waits,
               c.errors, c.first_error, c.error, c.published, c.created_at, c.started_at,
               c.finished_at
           FROM catlog.catalog c
           JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           JOIN catlog.provider p ON p.id = c.provider_id
           LEFT JOIN catlog.schedule d ON d.id = c.schedule_id""",
        ("id",),
        _newest("created_at"),
    ),
    Listing(
        "catalog_summaries",
        "Pruned catalogs of each scheme and day (UTC) in numbers.",
        """SELECT u.scheme_id, p.name AS provider, s.name AS scheme, s.version, u.day,
               u.first_number, u.last_number, u.first_created_at, u.last_finished_at, u.loaded,
               u.failed, u.cancelled, u.skipped, u.instances, u.attempts, u.accepted, u.rejected,
               u.dropped, u.published
           FROM catlog.catalog_summary u
           JOIN catlog.catalog_scheme s ON s.id = u.scheme_id
           JOIN catlog.provider p ON p.id = s.provider_id""",
        ("scheme_id", "day"),
        (OrderTerm("day", descending=True), OrderTerm("scheme_id")),
    ),
    Listing(
        "catalog_scheme_operation_instances",
        "Operation instances of each catalog, by part, with their latest attempt.",
        """SELECT i.id, i.catalog_id, i.operation_id, p.name AS provider, s.name AS scheme,
               o.name AS operation, i.part, i.arguments, i.priority, i.state, i.attempt,
               i.failures, i.available_at,
               CASE WHEN i.state = 'new' THEN catlog.wait_reason(i.id) END AS waits,
               i.lease_expires_at, i.node, a.started_at, a.finished_at, a.outcome, e.first_error,
               a.error, a.accepted, a.rejected, a.dropped
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           JOIN catlog.provider p ON p.id = i.provider_id
           LEFT JOIN catlog.instance_attempt a
               ON a.instance_id = i.id AND a.attempt = i.attempt
           LEFT JOIN LATERAL (
               SELECT f.error AS first_error FROM catlog.instance_attempt f
               WHERE f.instance_id = i.id AND f.outcome NOT IN ('done', 'released', 'cancelled')
               ORDER BY f.attempt LIMIT 1) AS e ON true""",
        ("id",),
        (OrderTerm("id"),),
    ),
    Listing(
        "catalog_results",
        "Results of loaded catalogs, row by row, as received.",
        """SELECT r.instance_id, r.attempt, r.seq, i.catalog_id, p.name AS provider,
               o.name AS operation, i.part, r.kind, r.key,
               CAST(r.data AS jsonb) AS data, r.link
           FROM catlog.catalog_operation_instance_result r
           JOIN catlog.catalog_scheme_operation_instance i
               ON i.id = r.instance_id AND i.attempt = r.attempt
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
           JOIN catlog.catalog c ON c.id = i.catalog_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           JOIN catlog.provider p ON p.id = i.provider_id
           WHERE c.state = 'loaded' AND i.state = 'done' AND r.seq < a.accepted""",
        ("instance_id", "seq"),
        (OrderTerm("instance_id"), OrderTerm("attempt"), OrderTerm("seq")),
    ),
    Listing(
        "schedules",
        "Schedules of catalogs.",
        """SELECT d.id, p.name AS provider, d.scheme_name AS scheme, d.name, d.cron, d.timezone,
               d.arguments, d.catch_up, d.enabled, d.paused_at, d.origin, d.next_due_at
           FROM catlog.schedule d JOIN catlog.provider p ON p.id = d.provider_id""",
        ("id",),
        (OrderTerm("provider"), OrderTerm("scheme"), OrderTerm("name")),
    ),
    Listing(
        "audit",
        "Audit log of changes through this server: actor, action, target, time and address.",
        "SELECT id, at, actor, role, action, target, address, detail FROM catlog.audit",
        ("id",),
        (OrderTerm("id", descending=True),),
    ),
)
