"""Benchmark views: queries through a typed view against a plain table."""

import statistics

from sqlalchemy import Engine, text

from benchmarks.common import Result, Server, declare, note, run_sql, seconds

# Queries of the owner of the ornament shops' data.
QUERIES = (
    "select vendor, count(distinct(sku)) from products group by vendor",
    "select release_year, count(distinct(sku)) from products"
    " where vendor = 'hallmark_ornaments_com' group by release_year",
    "select name, price, release_year, created_at from products order by created_at desc limit 5",
)
OTHERS = tuple(f"other_{number}" for number in range(4))


def run(server: Server, small: bool) -> Result:
    """Compare the time of three queries through the view with a plain typed table.

    The view reads 1 000 000 products beside 4 000 000 records of other kinds. The table holds the
    same rows in columns of the same types, with an index on `created_at`, as records have. The
    ratio is that of the slowest query. Also printed: the table with a primary key of all key
    fields. An index-only scan of this key answers the first query, which a view over jsonb cannot
    do.
    """
    count, rounds = (2_000, 1) if small else (1_000_000, 5)
    with server.database() as engine:
        declare(server, engine, "in_batches")
        fill(engine, count)
        ratios = []
        for number, query in enumerate(QUERIES, 1):
            tables = ("public.products", "plain.products", "plain.keyed_products")
            view, plain, keyed = compare(engine, query, tables, rounds)
            ratios.append(view / plain)
            note(
                f"query {number}: view {view * 1000:.1f} ms, table {plain * 1000:.1f} ms,"
                f" with its key {keyed * 1000:.1f} ms"
            )
    return Result("views", max(ratios), "<=2.5")


def fill(engine: Engine, count: int) -> None:
    """Insert the records, and create the tables from the view."""
    with engine.connect() as connection:
        provider = connection.execute(text("SELECT id FROM catlog.provider")).scalar_one()
    run_sql(
        engine,
        *(
            f"CREATE TABLE catlog.record_{kind} PARTITION OF catlog.record FOR VALUES IN ('{kind}')"
            for kind in OTHERS
        ),
        insert(str(provider), "products", count),
        *(insert(str(provider), kind, count) for kind in OTHERS),
        "VACUUM ANALYZE catlog.record",
        "CREATE SCHEMA plain",
        *(
            statement
            for table in ("plain.products", "plain.keyed_products")
            for statement in (
                f"CREATE TABLE {table} AS SELECT * FROM public.products",
                f"CREATE INDEX ON {table} (created_at)",
            )
        ),
        "ALTER TABLE plain.keyed_products ADD PRIMARY KEY (vendor, sku, name, link)",
        "VACUUM ANALYZE plain.products, plain.keyed_products",
    )


def insert(provider: str, kind: str, count: int) -> str:
    """Return the statement that inserts *count* products of `rows.product` as records of *kind*.

    Their order is not that of their keys; their times are a millisecond apart.
    """
    return f"""
        INSERT INTO catlog.record (provider_id, kind, key, scope_id, data, as_of, created_at,
            updated_at, catalog_id)
        SELECT '{provider}', '{kind}',
            '[' || concat_ws(',', p.data->'vendor', p.data->'sku', p.data->'name',
                p.data->'link') || ']',
            gen_random_uuid(), p.data, now(), p.at, p.at, gen_random_uuid()
        FROM (
            SELECT now() - make_interval(secs => n / 1000.0) AS at, jsonb_build_object(
                'vendor', vendor, 'sku', year || 'QX' || lpad(n::text, 7, '0'),
                'name', year || ' Father Christmas #' || n % 40 + 1,
                'price', (n % 90 + 5) || '.95', 'currency', 'USD',
                'brand', 'Hallmark',
                'availability', CASE WHEN n % 4 = 0 THEN 'unavailable' ELSE 'available' END,
                'release_year', year,
                'link', 'https://' || vendor || '.example/products/' || year || '-' || n || '.html'
            ) AS data
            FROM generate_series(1, {count}) AS n,
                LATERAL (SELECT 1973 + n % 48 AS year, (ARRAY['hallmark_ornaments_com',
                    'hookedonhallmark_com', 'ornament_shop_com'])[n % 3 + 1] AS vendor) AS drawn
        ) AS p"""


def compare(engine: Engine, query: str, tables: tuple[str, ...], rounds: int) -> list[float]:
    """Return the median seconds of *query* on each of *tables*, measured in turn."""
    times = [
        [ask(engine, query.replace("from products", f"from {table}")) for table in tables]
        for _ in range(rounds)
    ]
    return [statistics.median(of_one) for of_one in zip(*times, strict=True)]


def ask(engine: Engine, query: str) -> float:
    """Return the seconds until all rows are read; for a short query, the mean of many runs."""
    with engine.connect() as connection:
        once = seconds(lambda: connection.execute(text(query)).all())
        times = max(1, min(200, int(0.2 / once)))
        asked = seconds(lambda: [connection.execute(text(query)).all() for _ in range(times)])
        return asked / times
