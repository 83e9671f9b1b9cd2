"""Scheduler: creates due catalogs and does maintenance, periodically."""

import threading

from rich.console import Console
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue.schedules.due import make_due_in_steps
from catlog_scrapy.store.queue.starting import start_waiting
from catlog_scrapy.worker.pruning import Pruner


def schedule_once(engine: Engine, settings: Settings, console: Console) -> None:
    """Create the catalogs that are due now, and do maintenance."""
    for made in make_due_in_steps(engine):
        if made:
            lines = "\n".join(f"due: catalog {catalog_id}" for catalog_id in made)
            console.print(lines, markup=False, highlight=False)
            start_waiting(engine)
    tick(engine, settings.getfloat("CATLOG_LEASE"))


def run_scheduler(
    engine: Engine, settings: Settings, console: Console, stopping: threading.Event
) -> None:
    """Schedule every CATLOG_POLL seconds until *stopping*, with or without a database."""
    pruner = Pruner(engine, settings)
    while not stopping.is_set():
        try:
            schedule_once(engine, settings, console)
            pruner.step()
        except UNAVAILABLE as error:
            console.print(f"the database is unavailable: {reason(error)}", markup=False)
        stopping.wait(settings.getfloat("CATLOG_POLL"))
