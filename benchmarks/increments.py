"""What an incremental load asks of its source."""

from collections.abc import Iterable

from sqlalchemy import Engine

from benchmarks.common import Result, Server, note
from benchmarks.own import scrapy
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, small: bool) -> Result:
    """Requests of the load of a day in which 1 % changed, against those of the full load.

    Of all kinds of the school's data, as the server counts them, with log-ins and robots.txt.
    """
    schemes = ["organisations", "classes"] if small else ["everything"]
    with server.database() as engine, DemoServer() as school:
        scrapy(server, engine, school, "apply")
        load(server, engine, school, schemes)
        whole = len(school.visits)
        school.change()
        load(server, engine, school, schemes)
        day = len(school.visits) - whole
        note(f"{whole} requests for all of it, {day} for a day")
    return Result("increments", day / whole, "<=0.1")


def load(server: Server, engine: Engine, school: DemoServer, schemes: Iterable[str]) -> None:
    """Load *schemes* one after the other."""
    for scheme in schemes:
        scrapy(server, engine, school, "load", f"school/{scheme}")
