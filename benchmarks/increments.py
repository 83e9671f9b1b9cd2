"""Benchmark increments: requests of an incremental load."""

from collections.abc import Iterable

from sqlalchemy import Engine

from benchmarks.common import Result, Server, note
from benchmarks.own import scrapy
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, small: bool) -> Result:
    """Compare the requests of a load after 1 % of the data changed with those of the full load.

    All kinds of the school's data, counted by its server, log-ins and robots.txt included.
    """
    schemes = ["organisations", "classes"] if small else ["everything"]
    with server.database() as engine, DemoServer() as school:
        scrapy(server, engine, school, "apply")
        load(server, engine, school, schemes)
        full = len(school.visits)
        school.change()
        load(server, engine, school, schemes)
        day = len(school.visits) - full
        note(f"{full} requests for the full load, {day} for the increment")
    return Result("increments", day / full, "<=0.1")


def load(server: Server, engine: Engine, school: DemoServer, schemes: Iterable[str]) -> None:
    """Load *schemes* one after the other."""
    for scheme in schemes:
        scrapy(server, engine, school, "load", f"school/{scheme}")
