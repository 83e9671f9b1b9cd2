"""Loads of many small spiders in one project: each has a catalog with a state and an error."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import catalogs, starting
from tests.support.project import Project

HEADER = """
import asyncio
import json
import threading
from typing import Annotated, Any

from catlog_scrapy.records import Batch, FilesOf, Record
from scrapy import Request, Spider


class {record}(Record, key="id", view="{name}"):
    id: str
    number: int | None = None
    {fields}


class Base(Spider):
    record = {record}
    base_url: str = ""
    path: str = "/ok"

    async def start(self):
        yield Request(self.base_url + self.path)

    def parse(self, response):
        for item in json.loads(response.body):
            yield item


class Case(Base):
    name = "{name}"
    {spider}
"""


@dataclass
class Case:
    """Spider (the body of its class) and the expected end of its catalog.

    `error` is a part of the catalog's error, `rejected` of the reason of a rejected item;
    `declared` has more lines of its operation.
    """

    spider: str = ""
    state: str = "failed"
    error: str = ""
    keys: set[str] = field(default_factory=set)
    declared: str = ""
    scheme: str = "max_errors = 1"
    timeout: str = "60s"
    rejected: str = ""


class End(NamedTuple):
    """State, error and published keys of a catalog."""

    state: str
    error: str
    keys: set[str]


def run_cases(
    folder: Path, database_url: str, base_url: str, cases: Mapping[str, Case], **options: Any
) -> Engine:
    """Load each case once, by one worker, and return an engine; *options* of `given_cases`."""
    project = given_cases(folder, database_url, base_url, cases, **options)
    engine = make_engine(database_url)
    load_cases(project, engine, cases)
    return engine


def given_cases(
    folder: Path,
    database_url: str,
    base_url: str,
    cases: Mapping[str, Case],
    *,
    settings: str = "",
    modules: Mapping[str, str] | None = None,
    fields: str = "",
    provider: str = "",
) -> Project:
    """Write and apply a project with a scheme for each case."""
    project = Project(folder, database_url)
    with (folder / "shop/settings.py").open("a") as file:
        file.write(settings)
    for path, source in (modules or {}).items():
        project.write(path, source)
    toml = [f'[provider]\nname = "cases"\nbase_url = "{base_url}"\n{provider}\n']
    for name, case in cases.items():
        record = name.title().replace("_", "")
        project.write(
            f"shop/spiders/{name}.py",
            HEADER.format(name=name, record=record, fields=fields, spider=case.spider.strip()),
        )
        toml.append(
            f'[[scheme]]\nname = "{name}"\n{case.scheme}\n'
            f'[[scheme.operation]]\nname = "{name}"\ntimeout = "{case.timeout}"\n{case.declared}\n'
        )
    project.write("shop/providers/cases.toml", "\n".join(toml))
    project.scrapy("apply")
    return project


def load_cases(project: Project, engine: Engine, names: Iterable[str]) -> None:
    """Load the cases of these names once more."""
    queue_cases(engine, names)
    # Tracebacks of foreign code, such as threads of a spider, may be in the worker's output.
    worker = project.start("work", "--drain")
    out, err = worker.communicate()
    assert worker.returncode == 0, out + err


def queue_cases(engine: Engine, names: Iterable[str]) -> None:
    """Make a catalog for each of these cases, and start it."""
    for name in names:
        catalogs.create(engine, "cases", name)
    starting.start_waiting(engine)


def end_of(engine: Engine, name: str) -> End:
    """Return the end of a case's catalog."""
    with engine.connect() as connection:
        state, error = connection.execute(
            text(
                """SELECT c.state, c.error FROM catlog.catalog c
                   JOIN catlog.catalog_scheme s ON s.id = c.scheme_id WHERE s.name = :name
                   ORDER BY c.number DESC LIMIT 1"""
            ),
            {"name": name},
        ).one()
        keys = connection.execute(text(f"SELECT id FROM public.{name}")).scalars()
        return End(state, error or "", set(keys))


def check_case(engine: Engine, name: str, case: Case) -> None:
    """Check that a case's catalog has ended as expected."""
    end = end_of(engine, name)
    assert (end.state, case.error in end.error) == (case.state, True), end
    assert end.keys == case.keys


def outcomes(engine: Engine, name: str) -> list[Any]:
    """Return the outcomes of a case's attempts."""
    with engine.connect() as connection:
        return list(
            connection.execute(
                text(
                    """SELECT a.outcome FROM catlog.instance_attempt a
                       JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
                       JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
                       WHERE o.name = :name ORDER BY a.attempt"""
                ),
                {"name": name},
            ).scalars()
        )
