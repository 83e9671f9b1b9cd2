"""Benchmark republish: publishing without changes."""

import statistics
from collections.abc import Iterable

from sqlalchemy import Engine

from benchmarks.common import PROVIDER, SCHEME, Result, Server, declare, note, seconds
from benchmarks.rows import BATCH, products
from catlog_scrapy.items.ornaments import Product
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, claims, results, starting


def run(server: Server, small: bool) -> Result:
    """Compare the time to publish 1 000 000 unchanged records with their first publish.

    The same rows are loaded again as a second catalog of the same scheme. Only the publish is
    timed: it is the step that holds the provider's lock.
    """
    count = 2_000 if small else 1_000_000
    checked = [Product.model_validate(one).row() for one in products(count)]
    first, again = [], []
    for _ in range(1 if small else 3):
        with server.database() as engine:
            declare(server, engine, "in_batches")
            first.append(publish(engine, checked))
            again.append(publish(engine, checked))
            note(f"first {first[-1]:.3f} s, again {again[-1]:.3f} s")
    return Result("republish", statistics.median(again) / statistics.median(first), "<=0.5")


def publish(engine: Engine, checked: list[tuple[str, bytes]]) -> float:
    """Load the rows as a new catalog; return the seconds of its publish."""
    catalog = catalogs.create(engine, PROVIDER, SCHEME)
    starting.start_waiting(engine)
    [claim] = claims.claim(engine, "bench")
    name = claim.attempt
    for first in range(0, len(checked), BATCH):
        results.copy_batch(engine, lines(name, first, checked[first : first + BATCH]))
    attempts.complete(engine, name, attempts.Report(accepted=len(checked)))
    return seconds(lambda: publishing.publish(engine, catalog))


def lines(name: attempts.AttemptName, first: int, checked: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the rows in COPY's text format, numbered from *first*; keys need no escapes."""
    head = f"{name.instance}\t{name.number}\t"
    return b"".join(
        f"{head}{number}\tproducts\t{key}\t".encode() + data + b"\n"
        for number, (key, data) in enumerate(checked, first)
    )
