"""Benchmark increments: requests of an incremental load."""

from collections.abc import Iterable

from sqlalchemy import Engine

from benchmarks.common import Scale, Server
from benchmarks.own import scrapy
from benchmarks.report import Result
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the requests of a load after 1 % of the data changed with those of the full load.

    All kinds of the school's data, counted by its server, log-ins and robots.txt included.
    """
    schemes = ["organisations"] if scale.small else ["everything"]
    with server.database() as engine, DemoServer() as school:
        scrapy(server, engine, school, "apply")
        load(server, engine, school, schemes)
        full = len(school.visits)
        school.change()
        load(server, engine, school, schemes)
        day = len(school.visits) - full
    return [Result("increments", f"{day} requests", f"{full} requests", day / full, "<=0.1")]


def load(server: Server, engine: Engine, school: DemoServer, schemes: Iterable[str]) -> None:
    """Load *schemes* one after the other."""
    for scheme in schemes:
        scrapy(server, engine, school, "load", f"school/{scheme}")
