"""Fleet on this machine: real nodes of a temporary project that tests kill, stop and query."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
from sqlalchemy import Engine

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.store.queue import catalogs, starting
from tests.support.project import Project
from tests.support.proxy import Proxy
from tests.support.source import Answer, Source
from tests.support.waiting import WAIT_LIMIT_S, free_port, rows, until

# In the environment of every process of a fleet, and so of all that they start.
MARK = "FLEET_OF_A_TEST"
ROWS_A_PAGE = 10

CONFIGURATION = """
[settings]
default = shop.settings

[scrapyd]
application = catlog_scrapy.fleet.app.application
max_proc = {slots}
poll_interval = 0.2
"""

# `trouble` is what happens on the second page, the first time that the part comes so far; with
# `hold`, a file, the spider asks for that page again and again until the file is there.
SPIDERS = """
import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path

from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key=("batch", "part", "number"), view="things"):
    batch: str
    part: str
    number: int


class Slot(Record, key="part", view="slots"):
    part: str


class Things(Spider):
    name = "things"
    record = Thing
    base_url: str = ""
    batch: str = "-"
    part: str = "a"
    pages: str = "5"
    trouble: str = ""
    hold: str = ""
    custom_settings = {"CONCURRENT_REQUESTS": 1}

    async def start(self):
        yield Request(self.base_url + "/page?1")

    def parse(self, response):
        page = int(response.url.rpartition("?")[2])
        if page == 2 and self.trouble and self.is_first():
            self.meet()
        if page == 2 and self.hold and not Path(self.hold).exists():
            yield response.request.replace(dont_filter=True)
            return
        self.logger.info("page %d: %s", page, 2000 * ".")
        for number in range(10):
            yield {"batch": self.batch, "part": self.part, "number": page * 10 + number}
        if page < int(self.pages):
            yield Request(self.base_url + f"/page?{page + 1}")

    def is_first(self):
        try:
            Path(f"{self.trouble}-{self.part}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def meet(self):
        match self.trouble:
            case "exits":
                os._exit(3)
            case "segfaults":
                ctypes.string_at(0)
            case "blocks":
                time.sleep(1000)


class Slots(Spider):
    name = "slots"
    record = Slot
    part: str = ""
    hold: str = ""

    async def start(self):
        while not Path(self.hold).exists():
            await asyncio.sleep(0.05)
        yield {"part": self.part}
"""

DECLARATION = """
[provider]
name = "maker"
base_url = "{url}"
{provider}

[[scheme]]
name = "things"
max_errors = 50
[[scheme.operation]]
name = "things"
for_each = {parts}
arguments = {{ part = "{{part}}" }}
backoff = {{ base = "0.2s", cap = "1s" }}
{operation}
[[schedule]]
name = "yearly"
scheme = "things"
cron = "0 0 1 1 *"
"""

SLOTS_DECLARATION = """
[provider]
name = "slots"

[[scheme]]
name = "slots"
max_errors = 50
[[scheme.operation]]
name = "slots"
for_each = {parts}
arguments = {{ part = "{{part}}" }}
"""


def things(parts: Sequence[str], batch: str = "-", pages: int = 5) -> set[tuple[str, str, int]]:
    """Return the rows of an undisturbed load."""
    return {
        (batch, part, page * ROWS_A_PAGE + number)
        for part in parts
        for page in range(1, pages + 1)
        for number in range(ROWS_A_PAGE)
    }


class NodeProcess:
    """Node process (scrapyd) of the project, called *name*; it can be restarted."""

    def __init__(
        self,
        project: Project,
        name: str,
        *,
        port: int | None = None,
        wrapper: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.project = project
        self.port = port or free_port()
        self.name = f"{name}:{self.port}"
        self.home = project.folder / f"home-{name}"
        self.output = project.folder / f"{name}-{self.port}.output"
        self.wrapper = list(wrapper)
        self.environment = {
            **project.environment,
            "CATLOG_NODE": name,
            "CATLOG_HOME": str(self.home),
            "SCRAPYD_HTTP_PORT": str(self.port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the node's URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the pid of the running node."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the node has a process, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Start the node without waiting."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                # Several nodes in one folder: none may keep its pid there.
                [*self.wrapper, sys.executable, "-m", "scrapyd", "--pidfile="],
                cwd=self.project.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self

    def signal(self, number: int) -> None:
        """Send a signal to the node alone."""
        if self.is_running:
            assert self.process is not None
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the node, as a power failure does."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = WAIT_LIMIT_S) -> int:
        """Wait for the node's end, and return its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def said(self) -> str:
        """Return the node's output."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def parents(self) -> list[psutil.Process]:
        """Return the node's zygote processes."""
        if not self.is_running:
            return []
        with suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self.pid).children())
        return []

    def spiders(self) -> list[psutil.Process]:
        """Return the processes of the node's attempts."""
        found = []
        for parent in self.parents():
            with suppress(psutil.NoSuchProcess):
                found += [p for p in parent.children() if p.status() != psutil.STATUS_ZOMBIE]
        return found


class Fleet:
    """Project with its database and nodes; all processes are killed at the end."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        database_url: str,
        source: Source,
        *,
        parts: Sequence[str] = ("a", "b", "c", "d"),
        slots: int = 4,
        provider: str = "",
        operation: str = "",
        **environment: str,
    ) -> None:
        self.engine = engine
        self.database_url = database_url
        self.folder = folder
        self.parts = list(parts)
        self.slots = slots
        self.provider, self.operation = provider, operation
        self.source = source
        self.mark = uuid.uuid4().hex
        self.environment = {"CATLOG_LEASE": "600", "CATLOG_GRACE": "1", MARK: self.mark}
        self.environment |= environment
        self.project = self.make_project(folder / "shop", database_url)
        self.nodes: list[NodeProcess] = []
        self.others: list[subprocess.Popen[bytes]] = []
        for page in range(1, 100):
            source.answers[f"/page?{page}"] = Answer(b"[]", delay=0.05)

    def make_project(self, folder: Path, database_url: str) -> Project:
        """Create the project in *folder*, as on another machine."""
        project = Project(folder, database_url, **self.environment)
        project.write("scrapy.cfg", CONFIGURATION.format(slots=self.slots))
        project.write("shop/spiders/things.py", SPIDERS)
        declaration = DECLARATION.format(
            url=self.source.url,
            parts=self._list(self.parts),
            provider=self.provider,
            operation=self.operation,
        )
        project.write("shop/providers/maker.toml", declaration)
        numbers = [f"slot {number}" for number in range(3 * self.slots)]
        for count in range(1, 4):
            declaration = SLOTS_DECLARATION.format(parts=self._list(numbers[: count * self.slots]))
            # One provider for each number of nodes whose slots may have to be filled.
            declaration = declaration.replace('name = "slots"\n\n', f'name = "slots-{count}"\n\n')
            project.write(f"shop/providers/slots-{count}.toml", declaration)
        return project

    @staticmethod
    def _list(words: Sequence[str]) -> str:
        return "[" + ", ".join(f'"{word}"' for word in words) + "]"

    def apply(self) -> Self:
        """Bring the declarations into the database."""
        self.project.scrapy("apply")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.marked():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self.nodes:
            if node.process is not None:
                node.wait()
        for other in self.others:
            other.wait()

    def node(self, name: str = "one", *, ready: bool = True, **options: Any) -> NodeProcess:
        """Start a node; wait until it can claim, unless *ready* is False."""
        project = options.pop("project", self.project)
        node = NodeProcess(project, name, **options).start()
        self.nodes.append(node)
        if ready:
            self.ready(node)
        return node

    def ready(self, *nodes: NodeProcess) -> None:
        """Wait until the nodes have reported that they can run the project."""

        def told(node: NodeProcess) -> bool:
            assert node.is_running, node.said()
            return bool(
                rows(
                    self.engine,
                    """SELECT 1 FROM catlog.node WHERE name = :name AND pid = :pid
                       AND state = 'up' AND projects -> 'default' ->> 'project' IS NOT NULL""",
                    name=node.name,
                    pid=node.pid,
                )
            )

        for node in nodes:
            until(lambda node=node: told(node), what=node.said)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start `scrapy ARGUMENTS...` beside the nodes, without its output."""
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", *arguments],
            cwd=self.project.folder,
            env={**self.project.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.others.append(process)
        return process

    def load(self, name: str = "maker/things", **arguments: str) -> str:
        """Queue a catalog, and return its id."""
        provider, _, scheme = name.partition("/")
        catalog = catalogs.create(self.engine, provider, scheme, arguments=arguments)
        starting.start_waiting(self.engine)
        return str(catalog)

    def hold(self, name: str = "hold") -> Path:
        """Return the path of a new file, for the spiders' argument `hold`."""
        return self.folder / name

    # Queries of the database.

    def states(self) -> set[str]:
        """Return the states of all catalogs."""
        return {state for (state,) in rows(self.engine, "SELECT state FROM catlog.catalog")}

    def outcomes(self) -> list[str]:
        """Return the outcomes of ended attempts, in the order of their ends."""
        sql = """SELECT outcome FROM catlog.instance_attempt WHERE outcome IS NOT NULL
                 ORDER BY finished_at"""
        return [outcome for (outcome,) in rows(self.engine, sql)]

    def errors(self) -> list[str]:
        """Return outcome and error of each attempt that was not done.

        Attempts that a node released because it was still importing the project are left out: their
        number depends on the speed of the machine.
        """
        sql = """SELECT outcome || ': ' || coalesce(error, '') FROM catlog.instance_attempt
                 WHERE outcome <> 'done' AND NOT (
                     outcome = 'released' AND error LIKE '%is being imported')
                 ORDER BY finished_at"""
        return [error for (error,) in rows(self.engine, sql)]

    def running(self, node: NodeProcess | None = None) -> int:
        """Count the attempts that a process has begun and not ended."""
        sql = """SELECT count(*) FROM catlog.instance_attempt
                 WHERE outcome IS NULL AND begun_at IS NOT NULL AND node LIKE :node"""
        return int(rows(self.engine, sql, node=node.name if node else "%")[0][0])

    def stored(self) -> int:
        """Count the stored results."""
        sql = "SELECT count(*) FROM catlog.catalog_operation_instance_result"
        return int(rows(self.engine, sql)[0][0])

    def node_error(self, node: NodeProcess) -> str:
        """Return the node's last error."""
        sql = "SELECT coalesce(error, '') FROM catlog.node WHERE name = :name"
        return str(rows(self.engine, sql, name=node.name)[0][0])

    def is_over(self) -> bool:
        """Return whether no catalog is open."""
        return not self.states() & {"waiting", "loading", "publishing"}

    def report(self) -> str:
        """Describe the state of the fleet, for the message of a failed test."""
        attempts = rows(
            self.engine,
            """SELECT i.part, a.attempt, a.node, a.outcome, a.error FROM catlog.instance_attempt a
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
               WHERE a.outcome IS DISTINCT FROM 'done' ORDER BY a.started_at""",
        )
        said = [f"{node.name}:\n{node.said()[-3000:]}" for node in self.nodes]
        return "\n".join([str(self.states()), *map(str, attempts), *said])

    # Conditions that must hold after any fault.

    def ends(self) -> None:
        """Wait until no catalog is open."""
        until(self.is_over, what=self.report)

    def marked(self) -> list[psutil.Process]:
        """Return all processes of this fleet: the nodes and their descendants."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def orphans(self) -> list[psutil.Process]:
        """Return the processes that should have ended: all but nodes, zygotes and commands."""
        known = {node.pid for node in self.nodes if node.is_running}
        known |= {parent.pid for node in self.nodes for parent in node.parents()}
        known |= {other.pid for other in self.others}
        return [process for process in self.marked() if process.pid not in known]

    def is_sound(self, expected: set[tuple[str, str, int]]) -> None:
        """Assert that all records are loaded, no process is left, and every slot is usable."""
        self.ends()
        assert self.states() == {"loaded"}, self.report()
        assert set(rows(self.engine, "SELECT batch, part, number FROM things")) == expected
        self.nothing_is_left()
        self.has_all_its_slots()

    def nothing_is_left(self) -> None:
        """Assert that no instance, attempt or process is left, and no instance was done twice."""
        held = """SELECT id FROM catlog.catalog_scheme_operation_instance
                  WHERE node IS NOT NULL OR state = 'running'"""
        until(lambda: not rows(self.engine, held), what=self.report)
        open_ = "SELECT instance_id FROM catlog.instance_attempt WHERE outcome IS NULL"
        assert rows(self.engine, open_) == [], self.report()
        twice = """SELECT instance_id FROM catlog.instance_attempt WHERE outcome = 'done'
                   GROUP BY instance_id HAVING count(*) > 1"""
        assert rows(self.engine, twice) == []
        # One whose network was cut may hang for so long after its lease.
        until(lambda: not self.orphans(), what=lambda: [str(p) for p in self.orphans()])
        for node in self.nodes:
            for parent in node.parents():
                until(lambda parent=parent: not parent.children(), what="a zombie is left")
        too_many = rows(
            self.engine,
            """SELECT p.name, a.started_at, p.max_running, count(*)
               FROM catlog.instance_attempt a
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
               JOIN catlog.provider p ON p.id = i.provider_id
               JOIN catlog.catalog_scheme_operation_instance j ON j.provider_id = p.id
               JOIN catlog.instance_attempt b ON b.instance_id = j.id
                   AND a.started_at >= b.started_at AND a.started_at < b.finished_at
               GROUP BY a.instance_id, a.attempt, p.id HAVING count(*) > p.max_running""",
        )
        assert too_many == []

    def has_all_its_slots(self) -> None:
        """Assert that every running node runs exactly as many spiders as it has slots."""
        nodes = [node for node in self.nodes if node.is_running]
        if not nodes:
            return
        hold = self.hold(f"hold-{uuid.uuid4().hex}")
        name = f"slots-{len(nodes)}/slots"
        catalog = self.load(name, hold=str(hold))
        count = """SELECT a.node, count(*)
                   FROM catlog.instance_attempt a
                   JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
                   WHERE i.catalog_id = :catalog AND a.begun_at IS NOT NULL AND a.outcome IS NULL
                   GROUP BY 1"""
        full = {node.name: self.slots for node in nodes}
        until(
            lambda: dict(rows(self.engine, count, catalog=catalog)) == full,
            what=lambda: (rows(self.engine, count, catalog=catalog), self.report()),
        )
        hold.touch()
        self.ends()
        state = "SELECT state FROM catlog.catalog WHERE id = :catalog"
        assert rows(self.engine, state, catalog=catalog) == [("loaded",)], self.report()


class Database:
    """Separate PostgreSQL server that a test can kill."""

    def __init__(self, home: Path) -> None:
        self.server = EmbeddedServer(home)
        self.home = home

    def __enter__(self) -> Self:
        self.url = self.server.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.start()
        self.server.release()

    def kill(self) -> None:
        """Kill the postmaster, as a power failure does."""
        pid = int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start the server, if it does not run."""
        self.server.acquire()


class ProxyAt(Proxy):
    """Proxy for clients that reach *address*, but not this machine's 127.0.0.1."""

    def __init__(self, target: str, address: str) -> None:
        self.address = address
        super().__init__(target)

    @property
    def url(self) -> str:
        """Return a database URL through the proxy."""
        return super().url.replace("127.0.0.1", self.address)

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server((self.address, port), backlog=128)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a small file system at *folder*; this needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        # Processes that have just been killed may hold it for a moment.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system of *folder* with a file, and return the file."""
    file = folder / "filler"
    with suppress(OSError), file.open("ab", buffering=0) as output:
        while True:
            output.write(b"x" * 4096)
    return file
