"""Benchmark views: queries of the owner through a view against a plain table."""

import statistics

from sqlalchemy import Engine, text

from benchmarks.common import Scale, Server, run_sql
from benchmarks.loads import READ_ROWS, SMALL_READ_ROWS, published
from benchmarks.measuring import Cost, Meter, in_turn
from benchmarks.report import Result, compare_cpu, note
from benchmarks.tables import copy_indexes

# Queries of the owner of the ornament shops' data.
QUERIES = (
    "select vendor, count(distinct(sku)) from products group by vendor",
    "select release_year, count(distinct(sku)) from products"
    " where vendor = 'hallmark_ornaments_com' group by release_year",
    "select name, price, release_year, created_at from products order by created_at desc limit 5",
)
OTHERS = 4
# A short query runs so long in a round.
MIN_ROUND_S = 0.2


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of three queries through the view with a plain typed table.

    The view reads products beside four times as many records of other kinds. The table holds the
    same rows in columns of the same types, with the same indexes. The line is that of the slowest
    query by its ratio.
    """
    count, rounds = scale.count(READ_ROWS, SMALL_READ_ROWS), scale.times()
    engine = published(server, count)
    fill(engine)
    lines = []
    for number, query in enumerate(QUERIES, 1):
        view, plain = in_turn(
            rounds,
            lambda q=query: ask(server.meter, engine, "public.products", q),  # type: ignore[misc]
            lambda q=query: ask(server.meter, engine, "plain.products", q),  # type: ignore[misc]
        )
        lines.append(compare_cpu("views", view, plain, "<=1.2", 1))
        note(f"query {number}: view {lines[-1].measured}, table {lines[-1].peer}")
        note(f"wall: {median_wall(view):.4f} s and {median_wall(plain):.4f} s")
    slowest = max(lines, key=lambda line: line.ratio)
    sample = f"{compare_cpu('', view, plain, '<=1', count).sample}"
    return [Result(**{**vars(slowest), "sample": sample})]


def fill(engine: Engine) -> None:
    """Create the plain table from the view, and the tables of records of other kinds."""
    run_sql(
        engine,
        "CREATE SCHEMA plain",
        "CREATE TABLE plain.products AS SELECT * FROM public.products",
        *(
            f"CREATE TABLE plain.other_{number} AS SELECT * FROM records.products"
            for number in range(OTHERS)
        ),
    )
    copy_indexes(engine, "plain.products")
    run_sql(engine, "VACUUM ANALYZE", "CHECKPOINT")


def ask(meter: Meter, engine: Engine, table: str, query: str) -> Cost:
    """Return the cost of a query until all rows are read; for a short one, the mean of many."""
    asked = query.replace("from products", f"from {table}")
    with engine.connect() as connection:
        once = meter.measure(lambda: connection.execute(text(asked)).all())
        times = max(1, min(200, int(MIN_ROUND_S / once.wall_s)))
        cost = meter.measure(lambda: [connection.execute(text(asked)).all() for _ in range(times)])
    return Cost(cost.wall_s / times, cost.client_s / times, cost.server_s / times)


def median_wall(costs: list[Cost]) -> float:
    """Return the median wall time of *costs*."""
    return statistics.median(cost.wall_s for cost in costs)
