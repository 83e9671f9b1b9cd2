"""Scheduler: creates due catalogs and does maintenance, periodically."""

import threading

from rich.console import Console
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue.schedules.due import make_due


def schedule_once(engine: Engine, settings: Settings, console: Console) -> None:
    """Create the catalogs that are due now, and do maintenance."""
    for catalog_id in make_due(engine):
        console.print(f"due: catalog {catalog_id}")
    tick(engine, settings.getfloat("CATLOG_LEASE"))


def run_scheduler(
    engine: Engine, settings: Settings, console: Console, stopping: threading.Event
) -> None:
    """Schedule every CATLOG_POLL seconds until *stopping*, with or without a database."""
    while not stopping.is_set():
        try:
            schedule_once(engine, settings, console)
        except UNAVAILABLE as error:
            console.print(f"the database is unavailable: {reason(error)}", markup=False)
        stopping.wait(settings.getfloat("CATLOG_POLL"))
