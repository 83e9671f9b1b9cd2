"""Composition root of a node: scrapyd's `application` option.

    [scrapyd]
    application = catlog_scrapy.fleet.app.application

It replaces scrapyd's default components by catlog's, keeps the components that the user's
configuration names, and lets scrapyd build the application.
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

from catlog_scrapy.db.database_url import MAX_PORT
from catlog_scrapy.db.refusals import refusals_reported
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.fleet.credentials import credentials
from catlog_scrapy.fleet.node import NodeService
from catlog_scrapy.readiness import notify_ready
from catlog_scrapy.termination import Terminated, raise_on_termination

# Replacements of scrapyd's defaults: option, default, replacement. Other values stay.
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
    """Build the node's application. Raises ConfigError, with whose text scrapyd exits."""
    for option, (default, ours) in COMPONENTS.items():
        if config.get(option, default) == default:
            config.cp.set(config.SECTION, option, ours)
    for service, replaced in SERVICES.items():
        default = f"{replaced.__module__}.{replaced.__name__}"
        if config.cp.get("services", service, fallback="") == default:
            ours = f"catlog_scrapy.fleet.webservice.{replaced.__name__}"
            config.cp.set("services", service, ours)
    raise_on_termination()
    address = os.getenv("SCRAPYD_BIND_ADDRESS") or config.get("bind_address", "127.0.0.1")
    port = _port(config)
    _require_password(config, address)
    try:
        with refusals_reported():
            node = NodeService(config, host=_public_host(address), port=port, slots=_slots(config))
            node.lease_name()
            _require_port(address, port)
            node.start()
    except CatlogError as error:
        raise ConfigError(f"scrapyd: {error}") from error
    except Terminated:
        raise SystemExit(0) from None
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
        """Notify the waiting process."""
        super().startService()
        notify_ready(self.url)


class PidFile(Service):
    """Service that removes twistd.pid while the node runs.

    With the file, twistd would refuse a second node in the folder. It would also refuse to restart
    a killed container in which another process has the former pid. When the service stops, twistd
    expects the file, so it is written again.
    """

    def __init__(self) -> None:
        self.path = Path("twistd.pid")
        self.is_mine = False

    def startService(self) -> None:
        """Remove the file."""
        super().startService()
        with suppress(OSError):
            self.is_mine = self.path.read_text() == str(os.getpid())
            if self.is_mine:
                self.path.unlink()

    def stopService(self) -> None:
        """Restore the file."""
        super().stopService()
        if self.is_mine:
            with suppress(OSError):
                self.path.write_text(str(os.getpid()))


def _port(config: Config) -> int:
    """Return the node's port. Raises ConfigError for 0 too: the port is a part of the name."""
    port = os.getenv("SCRAPYD_HTTP_PORT") or config.get("http_port", "6800")
    if not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
        raise ConfigError(
            f"scrapyd: the port {port!r} is not valid; use a number from 1 to {MAX_PORT}, in"
            " http_port (or SCRAPYD_HTTP_PORT, or --port of scrapy up)"
        )
    return int(port)


def _require_password(config: Config, address: str) -> None:
    """Raise ConfigError for a public address without password: clients may deploy code."""
    if not address or _is_loopback(address):
        return
    if not all(credentials(config)):
        raise ConfigError(
            f"scrapyd: bind_address {address} needs a password; set username and password (or"
            " SCRAPYD_USERNAME and SCRAPYD_PASSWORD), or bind to 127.0.0.1"
        )


def _require_port(address: str, port: int) -> None:
    """Raise ConfigError if the port is taken. twistd would notice later, with a traceback."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise ConfigError(
                f"scrapyd: cannot listen on {address}:{port}: {error.strerror}; choose another"
                " http_port (or SCRAPYD_HTTP_PORT, or --port of scrapy up)"
            ) from error


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _public_host(address: str) -> str:
    """Return the host of the node's URL."""
    return socket.gethostname() if address in ("0.0.0.0", "::", "") else address


def _slots(config: Config) -> int:
    """Return the number of slots, as scrapyd computes it."""
    return int(
        config.getint("max_proc", 0)
        or multiprocessing.cpu_count() * config.getint("max_proc_per_cpu", 4)
    )
