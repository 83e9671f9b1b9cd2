"""Fleet from a user's view: real nodes, stock scrapyd-client, HTTP and the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen
from zipfile import ZipFile

import psutil
import pytest
import requests
from scrapyd_client import ScrapydClient
from scrapyd_client.exceptions import ErrorResponse
from sqlalchemy import Engine

from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import WAIT_LIMIT_S, free_port, rows, until

SPIDERS = """
import time

from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Page(Record, key="number", view="pages"):
    number: int
    seen: str


class Pages(Spider):
    name = "pages"
    record = Page
    base_url: str = ""
    first: str = "1"
    last: str = "2"

    async def start(self):
        for number in range(int(self.first), int(self.last) + 1):
            yield Request(f"{self.base_url}/page?{number}")

    def parse(self, response):
        number = int(response.url.rpartition("?")[2])
        agent = self.settings["USER_AGENT"]
        yield {"number": number, "seen": agent}


class Rocks(Pages):
    name = "rocks"
    start_urls = ()


class Block(Record, key="number", view="blocks"):
    number: int


class Blocks(Spider):
    name = "blocks"
    record = Block
    base_url: str = ""

    async def start(self):
        yield Request(self.base_url + "/page?1")

    def parse(self, response):
        time.sleep(600)
"""

DECLARATION = """
[provider]
name = "maker"
base_url = "{url}"

[[scheme]]
name = "pages"
operations = ["pages"]

[[scheme]]
name = "blocks"
[[scheme.operation]]
name = "blocks"
"""

NODE = """
[settings]
default = shop.settings

[scrapyd]
application = catlog_scrapy.fleet.app.application
max_proc = 3
"""


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Node:
    """Node process: `scrapyd`, started in *folder*."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = ScrapydClient(self.url)
        self.log = (folder / f"node-{self.port}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scrapyd"],
            cwd=folder,
            env={**environment, "SCRAPYD_HTTP_PORT": str(self.port)},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        until(lambda: self.process.poll() is not None or self._answers())

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str, **values: str) -> Any:
        with urlopen(f"{self.url}/{path}?{urlencode(values)}", timeout=WAIT_LIMIT_S) as answer:
            return json.load(answer)

    def state(self, job: str) -> Any:
        return self.client.status(job)["currstate"]

    def finish(self, job: str) -> dict[str, Any]:
        """Wait for the end of a job, and return the job as the node lists it."""
        until(lambda: self.state(job) == "finished")
        return next(j for j in self.client.jobs("shop")["finished"] if j["id"] == job)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_LIMIT_S)

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        source.answers = {f"/page?{page}": Answer(b"[]") for page in range(1, 100)}
        yield source


@pytest.fixture
def project(database_url: str, tmp_path: Path, source: Source) -> Project:
    """Create and apply a project `shop` in the folder `checkout`."""
    project = Project(tmp_path / "checkout", database_url, CATLOG_GRACE="1")
    project.write("scrapy.cfg", NODE)
    project.write("shop/spiders/pages.py", SPIDERS)
    project.write("shop/providers/maker.toml", DECLARATION.format(url=source.url))
    project.scrapy("apply")
    return project


@pytest.fixture
def start(project: Project) -> Iterator[Callable[..., Node]]:
    """Return a function that starts nodes; kill the running nodes at the end."""
    nodes: list[Node] = []

    def begin(folder: Path | None = None, **environment: str) -> Node:
        values = {**project.environment, **environment}
        nodes.append(Node(folder or project.folder, values))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.process.kill()
        node.process.wait()
        node.log.close()


def test_job_is_known_to_all_nodes(
    engine: Engine, project: Project, start: Callable[..., Node]
) -> None:
    here, there = start(), start()
    job = here.client.schedule("shop", "pages", [("last", "3"), ("setting", "USER_AGENT=me")])
    listed = there.finish(job)
    assert listed["spider"] == "pages"
    assert listed["outcome"] == "done"
    assert listed["node"].endswith((str(here.port), str(there.port)))
    assert rows(engine, "SELECT number, seen FROM pages ORDER BY 1") == [
        (1, "me"),
        (2, "me"),
        (3, "me"),
    ]
    assert there.get("daemonstatus.json") | {"node_name": ""} == {
        "pending": 0,
        "running": 0,
        "finished": 1,
        "status": "ok",
        "node_name": "",
    }
    told = project.scrapy("status", job)
    assert f"done on {listed['node']}" in told
    assert ".log" in told
    with urlopen(listed["log_url"] if ":" in listed["log_url"] else here.url + listed["log_url"]):
        pass


def test_restarted_node_lists_its_former_jobs(start: Callable[..., Node]) -> None:
    node = start()
    job = node.client.schedule("shop", "pages", [("jobid", "mine")])
    assert job == "mine"
    node.finish(job)
    assert node.stop() in (0, -signal.SIGTERM)
    again = start()
    assert again.state("mine") == "finished"
    assert again.state("theirs") is None
    assert [j["id"] for j in again.client.jobs("shop")["finished"]] == ["mine"]


def test_invalid_job_is_refused_with_a_sentence(start: Callable[..., Node]) -> None:
    node = start()
    with pytest.raises(ErrorResponse, match="'rocks' is not an operation of project 'shop'"):
        node.client.schedule("shop", "rocks")
    with pytest.raises(ErrorResponse, match="project 'shed' not found"):
        node.client.schedule("shed", "pages")
    with pytest.raises(ErrorResponse, match="version '7' of project 'default' not found"):
        node.client.schedule("default", "pages", [("_version", "7")])
    with pytest.raises(ErrorResponse, match="is not a valid setting; use NAME=VALUE"):
        node.client.schedule("shop", "pages", [("setting", "LOG_LEVEL")])
    node.client.schedule("shop", "pages", [("jobid", "twice")])
    with pytest.raises(ErrorResponse, match="a job 'twice' exists already"):
        node.client.schedule("shop", "pages", [("jobid", "twice")])


def test_node_project_also_answers_to_default(start: Callable[..., Node]) -> None:
    node = start()
    until(lambda: node.client.projects() == ["shop"])
    for name in ("shop", "default"):
        assert node.client.spiders(name) == ["blocks", "pages", "rocks"]


def test_job_with_an_unknown_argument_is_refused(start: Callable[..., Node]) -> None:
    with pytest.raises(
        ErrorResponse, match="has an argument 'lasst'; the arguments are: base_url, f"
    ):
        start().client.schedule("shop", "pages", [("lasst", "3")])


def test_node_runs_a_spider_that_was_added_after_its_start(
    engine: Engine, project: Project, start: Callable[..., Node], source: Source
) -> None:
    node = start()
    node.client.spiders("shop")
    added = SPIDERS.partition("class Rocks")[0].replace("Page", "Leaf").replace("pages", "leaves")
    project.write("shop/spiders/leaves.py", added.replace('"pages"', '"leaves"'))
    declaration = DECLARATION.format(url=source.url)
    more = '\n[[scheme]]\nname = "leaves"\noperations = ["leaves"]\n'
    project.write("shop/providers/maker.toml", declaration + more)
    project.scrapy("apply")
    assert node.finish(node.client.schedule("shop", "leaves"))["outcome"] == "done"


def test_broken_spider_module_counts_no_error_of_a_catalog(
    engine: Engine, project: Project, start: Callable[..., Node]
) -> None:
    node = start()
    node.client.spiders("shop")
    wrong = project.write("shop/spiders/wrong.py", "import nothing_of_that_name")
    job = node.client.schedule("shop", "pages")
    until(lambda: "nothing_of_that_name" in project.scrapy("nodes"))
    wrong.unlink()
    assert node.finish(job)["outcome"] == "done"
    assert rows(engine, "SELECT errors FROM catlog.catalog") == [(0,)]


def test_occupied_port_is_reported_in_a_line(project: Project, start: Callable[..., Node]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = project.scrapy("up", "--api-port", "0", "--port", str(taken.getsockname()[1]), code=1)
    assert "choose another http_port" in up
    assert "no nodes yet" in project.scrapy("nodes")


@pytest.mark.parametrize("port", ["0", "70000"])
def test_invalid_port_of_the_node_is_reported_in_a_line(project: Project, port: str) -> None:
    up = project.scrapy("up", "--api-port", "0", "--port", port, code=1)
    assert f"scrapyd: the port '{port}' is not valid; use a number from 1 to 65535" in up
    assert "the node ended with exit status 1" in up


def test_a_job_is_cancelled_from_another_node(
    engine: Engine, project: Project, start: Callable[..., Node], source: Source
) -> None:
    here = start()
    source.answers["/page?1"] = Answer(b"[]", delay=60)
    job = here.client.schedule("shop", "pages")
    until(lambda: here.state(job) == "running")
    pid = until(lambda: here.client.jobs("shop")["running"][0]["pid"])
    there = start()
    assert there.client.cancel("shop", job)["prevstate"] == "running"
    listed = there.finish(job)
    assert listed["outcome"] == "cancelled"
    until(lambda: not psutil.pid_exists(pid))
    assert there.client.cancel("shop", job)["prevstate"] is None


def test_a_pending_job_is_cancelled(engine: Engine, start: Callable[..., Node]) -> None:
    node = start()
    rows(engine, "UPDATE catlog.provider SET max_running = 1 RETURNING 1")
    first = node.client.schedule("shop", "blocks")
    until(lambda: node.state(first) == "running")
    second = node.client.schedule("shop", "pages", [("priority", "2")])
    pending = node.client.jobs("shop")["pending"]
    assert [(j["id"], j["spider"]) for j in pending] == [(second, "pages")]
    assert node.client.cancel("shop", second)["prevstate"] == "pending"


def test_a_node_drains_and_ends(engine: Engine, start: Callable[..., Node]) -> None:
    node = start()
    job = node.client.schedule("shop", "blocks")
    until(lambda: node.state(job) == "running")
    children = psutil.Process(node.process.pid).children(recursive=True)
    assert node.stop() in (0, -signal.SIGTERM)
    assert rows(engine, "SELECT outcome FROM catlog.instance_attempt") == [("released",)]
    assert rows(engine, "SELECT state FROM catlog.node") == [("stopped",)]
    assert not [child for child in children if is_alive(child)]
    assert "Traceback" not in node.said()


def test_nodes_are_listed_with_silent_nodes_marked(
    engine: Engine, project: Project, start: Callable[..., Node]
) -> None:
    assert "no nodes yet" in project.scrapy("nodes")
    node = start(CATLOG_NODE="harbour")
    assert "harbour" in project.scrapy("nodes")
    node.process.send_signal(signal.SIGSTOP)
    rows(engine, "UPDATE catlog.node SET polled_at = now() - interval '1 minute' RETURNING 1")
    [listed] = json.loads(project.scrapy("nodes", "--json"))
    node.process.send_signal(signal.SIGCONT)
    assert (listed["name"], listed["state"], listed["slots"]) == (
        f"harbour:{node.port}",
        "silent",
        3,
    )


def test_project_that_cannot_be_imported_is_reported_by_its_node(
    project: Project, start: Callable[..., Node]
) -> None:
    project.write("shop/spiders/wrong.py", "import nothing_of_that_name")
    node = start()
    until(lambda: "nothing_of_that_name" in project.scrapy("nodes"))
    with pytest.raises(ErrorResponse, match="nothing_of_that_name"):
        node.client.spiders("default")


def test_node_on_a_public_address_needs_a_password(
    project: Project, start: Callable[..., Node]
) -> None:
    node = start(SCRAPYD_BIND_ADDRESS="0.0.0.0")
    assert node.process.wait(WAIT_LIMIT_S) != 0
    assert "set username and password" in node.said()
    assert "Traceback" not in node.said()
    secured = {"SCRAPYD_USERNAME": "me", "SCRAPYD_PASSWORD": "secret"}
    with pytest.raises(HTTPError, match="401"):
        start(SCRAPYD_BIND_ADDRESS="0.0.0.0", **secured).get("daemonstatus.json")


def test_a_deployed_egg_runs_without_a_checkout(
    engine: Engine, project: Project, start: Callable[..., Node], tmp_path: Path
) -> None:
    """The egg brings declarations and views; the node's folder holds no file of the project."""
    bare = tmp_path / "bare"
    bare.mkdir()
    node = start(given_a_bare_folder(bare), PYTHONPATH="")
    deploy(project, node, "1")
    assert node.client.versions("shop") == ["1"]
    broken = project.write("shop/spiders/broken.py", "import nothing_of_that_name")
    with pytest.raises(AssertionError, match=r"not deployed: .*nothing_of_that_name"):
        deploy(project, node, "2")
    broken.unlink()
    assert node.client.versions("shop") == ["1"]
    job = node.client.schedule("shop", "pages")
    assert node.finish(job)["outcome"] == "done"
    assert rows(engine, "SELECT numbers FROM all_pages") == [(2,)]


def test_job_runs_the_project_version_that_it_names(
    engine: Engine, project: Project, start: Callable[..., Node], tmp_path: Path
) -> None:
    """The egg's code runs, even if the node's folder is a checkout of a newer version."""
    node = start()
    deploy(project, node, "1")
    project.write("shop/settings.py", SETTINGS_OF_TWO)
    deploy(project, node, "2")
    for version, agent in (("1", "Scrapy"), ("2", "two"), ("", "two")):
        node.finish(node.client.schedule("shop", "pages", [("_version", version)]))
        assert {seen[: len(agent)] for (seen,) in rows(engine, "SELECT seen FROM pages")} == {agent}


def test_project_that_opens_files_when_imported_starts_cold(
    engine: Engine, project: Project, start: Callable[..., Node]
) -> None:
    """The project opens a file and starts a process, which no child may share."""
    more = (
        "import subprocess\nLOG = open('own.log', 'a')\nHELP = subprocess.Popen(['sleep', '20'])\n"
    )
    project.write("shop/spiders/helper.py", more)
    node = start()
    for _ in range(2):
        assert node.finish(node.client.schedule("shop", "pages"))["outcome"] == "done"
    assert "start cold: importing the project opened files" in node.said()


def test_corrupt_egg_does_not_affect_other_projects(
    engine: Engine, project: Project, start: Callable[..., Node]
) -> None:
    node = start()
    with BytesIO() as file:
        with ZipFile(file, "w") as archive:
            archive.writestr("EGG-INFO/entry_points.txt", "no section")
        egg = file.getvalue()
    data = {"project": "other", "version": "1"}
    answer = requests.post(
        f"{node.url}/addversion.json", data=data, files={"egg": egg}, timeout=WAIT_LIMIT_S
    )
    assert answer.json()["message"].startswith("not deployed: ")
    (project.folder / "eggs/other").mkdir(parents=True, exist_ok=True)
    (project.folder / "eggs/other/2.egg").write_bytes(egg[:40])
    assert node.finish(node.client.schedule("shop", "pages"))["outcome"] == "done"
    assert rows(engine, "SELECT count(*) FROM catlog.instance_attempt") == [(1,)]


SETTINGS_OF_TWO = """
BOT_NAME = "shop"
SPIDER_MODULES = ["shop.spiders"]
ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}
USER_AGENT = "two"
"""
SETUP = """
from setuptools import find_packages, setup

setup(
    name="shop",
    version="1.0",
    packages=find_packages(),
    package_data={"shop": ["providers/*.toml", "views/*.sql"]},
    entry_points={"scrapy": ["settings = shop.settings"]},
)
"""


def given_a_bare_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "scrapyd.conf").write_text(NODE.partition("\n\n")[2])
    return folder


def deploy(project: Project, node: Node, version: str) -> None:
    """Run `scrapyd-deploy` for an egg with the declarations and a view."""
    project.write("setup.py", SETUP)
    project.write("shop/views/all_pages.sql", "SELECT count(*) AS numbers FROM pages")
    project.write("scrapy.cfg", f"{NODE}\n[deploy]\nurl = {node.url}/\nproject = shop\n")
    deployed = subprocess.run(
        [Path(sys.executable).parent / "scrapyd-deploy", "--version", version],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert '"status": "ok"' in deployed.stdout, deployed.stdout + deployed.stderr


def test_up_starts_and_stops_scheduler_node_and_server(
    engine: Engine, project: Project, source: Source
) -> None:
    """`scrapy up` also starts and stops the embedded server."""
    environment = {k: v for k, v in project.environment.items() if k != "CATLOG_DATABASE_URL"}
    alone = Project(project.folder, None)
    alone.environment = environment
    alone.write("scrapy.cfg", NODE)
    alone.scrapy("apply")
    port = free_port()
    up = alone.start("up", "--api-port", "0", "--port", str(port))
    client = ScrapydClient(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        try:
            return bool(client.daemonstatus())
        except OSError:
            return False

    until(answers)
    job = client.schedule("shop", "pages")
    until(lambda: client.status(job)["currstate"] == "finished")
    children = psutil.Process(up.pid).children(recursive=True)
    assert any("fleet.zygote" in " ".join(child.cmdline()) for child in children)
    up.send_signal(signal.SIGINT)
    out, err = up.communicate()
    assert up.returncode == 0, out + err
    assert not [child for child in children if is_alive(child)]
    server = project.folder / ".catlog" / "postgres" / "postmaster.pid"
    assert not server.exists()
    assert os.fspath(server)
