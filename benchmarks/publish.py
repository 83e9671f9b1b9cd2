"""Benchmark publish: new, unchanged and changed records from staging to readers."""

from sqlalchemy import Engine

from benchmarks.common import Scale, Server, declare, run_sql
from benchmarks.loads import load, product_rows, publish
from benchmarks.measuring import Cost, in_turn
from benchmarks.report import Result, compare_cpu, note_costs
from benchmarks.tables import copy_indexes

UPSERT = """
    INSERT INTO plain.products AS former SELECT * FROM plain.staging
    ON CONFLICT (id) DO UPDATE SET (hash, {columns}) = ROW (excluded.hash, {excluded})
    WHERE former.hash <> excluded.hash"""


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU to publish new, unchanged and 1 % changed records with a hand-written upsert.

    Only the publish is timed: it is the step that holds the provider's lock. The peer upserts the
    same typed rows, with their hashes computed before, from a staging table into a typed table
    with a primary key of 128 bits and the same further indexes. It keeps no history. The publish
    of unchanged records, loaded as a second catalog, is compared with the first publish.
    """
    count, rounds = scale.count(200_000, 200), scale.times()
    rows, changed_rows = list(product_rows(count)), list(product_rows(count, "99"))

    def measure() -> tuple[Cost, Cost, Cost, Cost]:
        with server.database() as engine:
            declare(server, engine, "in_batches")
            costs = []
            for loaded in (rows, rows, changed_rows):
                catalog = load(engine, loaded)
                run_sql(engine, "CHECKPOINT")
                costs.append(server.meter.measure(lambda c=catalog: publish(engine, c)))  # type: ignore[misc]
            upsert = stage(engine)
            run_sql(engine, "CHECKPOINT")
            peer = server.meter.measure(lambda: run_sql(engine, upsert))
            return costs[0], costs[1], costs[2], peer

    [measured] = in_turn(rounds, measure)
    new, unchanged, changed, upsert = zip(*measured, strict=True)
    note_costs(count, new=new, unchanged=unchanged, changed=changed, upsert=upsert)
    return [
        compare_cpu("publish", new, upsert, "<=1.3", count),
        compare_cpu("republish", unchanged, new, "<=0.3", count),
        compare_cpu("publish_changed", changed, new, "<=0.3", count),
    ]


def stage(engine: Engine) -> str:
    """Make the peer's empty table and fill its staging table; return the upsert."""
    with engine.connect() as connection:
        cursor = connection.exec_driver_sql("SELECT * FROM public.products LIMIT 0")
        columns = list(cursor.keys())
    run_sql(
        engine,
        "CREATE SCHEMA plain",
        """CREATE TABLE plain.staging AS
           SELECT md5(ROW (vendor, sku, name, link)::text)::uuid AS id,
               md5(p::text)::uuid AS hash, p.* FROM public.products p""",
        "CREATE TABLE plain.products AS SELECT * FROM plain.staging LIMIT 0",
        "ALTER TABLE plain.products ADD PRIMARY KEY (id)",
    )
    copy_indexes(engine, "plain.products")
    run_sql(engine, "VACUUM ANALYZE plain.staging")
    return UPSERT.format(
        columns=", ".join(columns), excluded=", ".join(f"excluded.{name}" for name in columns)
    )
