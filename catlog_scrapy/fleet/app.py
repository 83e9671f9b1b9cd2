"""The composition root of a node: scrapyd's `application` option.

    [scrapyd]
    application = catlog_scrapy.fleet.app.application

It puts catlog's parts where scrapyd's configuration names none of the user's own, and has scrapyd
build the rest.
"""

import ipaddress
import multiprocessing
import os
import socket
from contextlib import suppress
from pathlib import Path

import scrapyd.app
from scrapyd import webservice
from scrapyd.config import Config
from scrapyd.exceptions import ConfigError
from twisted.application.service import Service
from twisted.python.components import Componentized

from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.fleet.node import NodeService
from catlog_scrapy.readiness import notify_ready

# What stands in for scrapyd's defaults; whatever else a user has written stays.
COMPONENTS = {
    "poller": ("scrapyd.poller.QueuePoller", "catlog_scrapy.fleet.poller.Poller"),
    "launcher": ("scrapyd.launcher.Launcher", "catlog_scrapy.fleet.launcher.Launcher"),
    "spiderqueue": (
        "scrapyd.spiderqueue.SqliteSpiderQueue",
        "catlog_scrapy.fleet.spiderqueue.SpiderQueue",
    ),
    "jobstorage": (
        "scrapyd.jobstorage.MemoryJobStorage",
        "catlog_scrapy.fleet.jobstorage.JobStorage",
    ),
    "webroot": ("scrapyd.website.Root", "catlog_scrapy.fleet.website.Root"),
    "poll_interval": ("5.0", "1.0"),
}
SERVICES = {
    "schedule.json": webservice.Schedule,
    "cancel.json": webservice.Cancel,
    "status.json": webservice.Status,
    "addversion.json": webservice.AddVersion,
    "listprojects.json": webservice.ListProjects,
    "listspiders.json": webservice.ListSpiders,
    "listjobs.json": webservice.ListJobs,
    "daemonstatus.json": webservice.DaemonStatus,
}


def application(config: Config) -> Componentized:
    """The node, as twistd runs it. Raises ConfigError, which ends scrapyd with its text."""
    for option, (default, ours) in COMPONENTS.items():
        if config.get(option, default) == default:
            config.cp.set(config.SECTION, option, ours)
    for service, theirs in SERVICES.items():
        default = f"{theirs.__module__}.{theirs.__name__}"
        if config.cp.get("services", service, fallback="") == default:
            ours = f"catlog_scrapy.fleet.webservice.{theirs.__name__}"
            config.cp.set("services", service, ours)
    address = os.getenv("SCRAPYD_BIND_ADDRESS") or config.get("bind_address", "127.0.0.1")
    port = int(os.getenv("SCRAPYD_HTTP_PORT") or config.getint("http_port", 6800))
    _require_password(config, address)
    try:
        node = NodeService(config, host=_public(address), port=port, slots=_slots(config))
        node.hold_name()
        _require_port(address, port)
        node.start()
    except CatlogError as error:
        raise ConfigError(f"scrapyd: {error}") from error
    config.cp.set(config.SECTION, "logs_dir", str(node.logs))
    config.cp.set(config.SECTION, "node_name", node.name)
    config.catlog_node = node
    app = scrapyd.app.application(config)
    PidFile().setServiceParent(app)
    Ready(node.url).setServiceParent(app)
    return app


class Ready(Service):
    """Tells whoever waits for it that the node listens; the last service to be started."""

    def __init__(self, url: str) -> None:
        self.url = url

    def startService(self) -> None:
        super().startService()
        notify_ready(self.url)


class PidFile(Service):
    """Keeps twistd.pid away while the node runs.

    twistd would refuse a second node in the same folder, and a first one whose former pid another
    process has got meanwhile, as in a container that was killed. twistd expects to find it at the
    end.
    """

    def __init__(self) -> None:
        self.path = Path("twistd.pid")
        self.is_mine = False

    def startService(self) -> None:
        super().startService()
        with suppress(OSError):
            self.is_mine = self.path.read_text() == str(os.getpid())
            if self.is_mine:
                self.path.unlink()

    def stopService(self) -> None:
        super().stopService()
        if self.is_mine:
            with suppress(OSError):
                self.path.write_text(str(os.getpid()))


def _require_password(config: Config, address: str) -> None:
    """Whoever reaches a node can have it run spiders, and deploy code to it."""
    if not address or _is_loopback(address):
        return
    names = ("username", "password")
    if not all(os.getenv(f"SCRAPYD_{n.upper()}") or config.get(n, "") for n in names):
        raise ConfigError(
            f"scrapyd: bind_address is {address}, not loopback: set username and password as well"
            " (or SCRAPYD_USERNAME and SCRAPYD_PASSWORD), or bind to 127.0.0.1"
        )


def _require_port(address: str, port: int) -> None:
    """A node that cannot listen is none; twistd would find out too late, and at length."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigError(
                f"scrapyd: no listening on {address}:{port}: {error.strerror}; choose another"
                " http_port (or SCRAPYD_HTTP_PORT)"
            ) from error


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _public(address: str) -> str:
    """The host in the node's URL."""
    return socket.gethostname() if address in ("0.0.0.0", "::", "") else address


def _slots(config: Config) -> int:
    """As scrapyd counts them."""
    return int(
        config.getint("max_proc", 0)
        or multiprocessing.cpu_count() * config.getint("max_proc_per_cpu", 4)
    )
