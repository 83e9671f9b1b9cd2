"""What an incremental load asks of its source."""

from benchmarks.common import Result, Server, note
from benchmarks.own import scrapy
from catlog_scrapy.demo.server import DemoServer

EVERYTHING = ("load", "school/everything")


def run(server: Server, small: bool) -> Result:
    """Requests of the load of a day in which 1 % changed, against those of the full load.

    All kinds of the school's data, as the server counts them: log-ins and robots.txt are among them.
    """
    with server.database() as engine, DemoServer() as school:
        scrapy(server, engine, school, "apply")
        scrapy(server, engine, school, *EVERYTHING)
        whole = len(school.visits)
        school.change()
        scrapy(server, engine, school, *EVERYTHING)
        day = len(school.visits) - whole
        note(f"{whole} requests for all of it, {day} for a day")
    return Result("increments", day / whole, "<=0.1")
