"""Loads without a crawl: results stored by the queue's functions, then published."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from sqlalchemy import Engine

from benchmarks.common import PROVIDER, SCHEME, Server, declare, run_sql
from benchmarks.project.items import Product
from benchmarks.rows import BATCH, KEY, products
from catlog_scrapy.records.validation import ItemValidator, Row, ValidatedItem
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, claims, copy_format, results, starting
from catlog_scrapy.store.queue.report import Report

# Products of the benchmarks that only read.
READ_ROWS, SMALL_READ_ROWS = 500_000, 2_000

RESOURCES = f"""
[resources.products]
view = "products"
key = {list(KEY)}
"""


def product_rows(count: int, changed: str = "") -> Iterator[Row]:
    """Generate the rows of the first *count* products, as the crawl's validation makes them."""
    validator = ItemValidator({Product.kind: Product})
    for product in products(count, changed):
        validated = ValidatedItem(product)
        validator.validate(product, None, validated)
        yield from validated.rows


def load(engine: Engine, rows: Iterable[Row]) -> UUID:
    """Store *rows* as the results of a new catalog, which waits for its publish then."""
    catalog = catalogs.create(engine, PROVIDER, SCHEME)
    starting.start_waiting(engine)
    [claim] = claims.claim(engine, "bench")
    prefix, number = copy_format.RowPrefix(claim.attempt, claim.provider_id), 0
    for batch in batches(rows):
        copied = bytearray()
        number = copy_format.write_rows(copied, prefix, number, batch)
        results.copy_batch(engine, copied)
    attempts.complete(engine, claim.attempt, Report(accepted=number))
    return catalog


def published(server: Server, count: int) -> Engine:
    """Return a database with *count* published products, for all benchmarks that only read.

    Indexes are declared for the queries, filters and orders that the benchmarks measure.
    """
    with server.publishing:
        if count not in server.published:
            engine = server.ending.enter_context(server.database())
            declare(server, engine, "indexed", RESOURCES)
            publish(engine, load(engine, product_rows(count)))
            run_sql(engine, "VACUUM ANALYZE", "CHECKPOINT")
            server.published[count] = engine
        return server.published[count]


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut *rows* into lists of BATCH rows."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def publish(engine: Engine, catalog: UUID) -> None:
    """Publish a catalog. Raises RuntimeError if it cannot be published now."""
    if not publishing.publish(engine, catalog):
        raise RuntimeError(f"catalog {catalog} was not published")
