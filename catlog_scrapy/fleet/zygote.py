"""The zygote: a process that has imported a project, and forks a spider off in milliseconds.

`python -m catlog_scrapy.fleet.zygote [cold]`, with the project in its environment. It has no
reactor, no thread and no connection that a child could inherit: it reads commands from its standard
input and replies on its standard output, a line of JSON each, until its input ends; then it kills
its children and goes.

Commands: `{"run": ATTEMPT, "log": FILE}`, `{"signal": ATTEMPT, "number": N}`. Answers: first
`{"capabilities": {...}, "obstacle": REASON|null, "files": [...]}` or `{"failed": REASON}`; then
`{"began": ATTEMPT}`, `{"refused": ATTEMPT, "error": REASON}` and
`{"ended": ATTEMPT, "status": N, "oom": true|false}`, N as of waitpid.

Cold, or where importing the project did more than define (see `_fork_obstacle`), a child does not go
on in the imported project: it becomes `scrapy crawl` in an interpreter of its own.
"""

import gc
import io
import os
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson
from rich.console import Console
from scrapy.settings import BaseSettings, Settings
from scrapy.utils.misc import load_object
from scrapy.utils.project import get_project_settings

from catlog_scrapy import addon
from catlog_scrapy.console import make_console
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.capabilities import Capabilities, read_capabilities
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.processes import (
    become_subreaper,
    child_processes,
    die_with_parent,
    kill,
    kill_group,
    oom_kills,
    open_descriptors,
)
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.worker.single_attempt import run_attempt

# The settings whose components are imported before there is a child that needs them.
COMPONENTS = (
    "_CLASS",
    "_MIDDLEWARES",
    "_QUEUE",
    "ADDONS",
    "DOWNLOADER",
    "DOWNLOAD_HANDLERS",
    "EXTENSIONS",
    "ITEM_PIPELINES",
    "ITEM_PROCESSOR",
    "LOG_FORMATTER",
    "SCHEDULER",
)
SITE = f"{os.sep}site-packages{os.sep}"


def main() -> None:
    """Import the project, say what it offers, and do as told until the input ends."""
    die_with_parent(os.getppid())
    # What the project prints is no answer of ours, nor are our commands what it may read.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    commands = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    before = open_descriptors()
    try:
        settings, capabilities = prepare()
    except BaseException as error:  # the boundary to the project's modules: they may raise anything
        traceback.print_exc()
        said = str(error) if isinstance(error, CatlogError) else f"{type(error).__name__}: {error}"
        said = said.removeprefix("nothing was changed: ")
        replies.write(_line({"failed": said, "files": project_files()}))
        sys.exit(1)
    obstacle = "told to be cold" if "cold" in sys.argv[1:] else _fork_obstacle(before)
    replies.write(
        _line(
            {"capabilities": asdict(capabilities), "obstacle": obstacle, "files": project_files()}
        )
    )
    # The collector would touch, and so copy, every page that zygote and child could share.
    gc.collect()
    gc.freeze()
    with suppress(Exception):  # the project may have closed it
        sys.stdout.flush()
    # From here on the end of its input tells it of its parent's end, and it can end its children.
    die_with_parent(os.getppid(), 0)
    become_subreaper()
    Zygote(settings, commands, replies, is_warm=obstacle is None).serve()


def prepare() -> tuple[Settings, Capabilities]:
    """Import all that a crawl of this project will need; its settings, and what it can run."""
    settings = get_project_settings()
    addon.CatlogAddon.update_pre_crawler_settings(settings)
    settings.set("LOG_LEVEL", "INFO", "default")
    capabilities = read_capabilities(settings, load_spiders(settings))
    for name in settings:
        if name.removesuffix("_BASE").endswith(COMPONENTS):
            _import_all(settings[name])
    _warm_up(settings)
    return settings, capabilities


def _warm_up(settings: Settings) -> None:
    """Have done once what costs a child milliseconds only the first time; nothing of it stays."""
    settings.set("LOG_VERSIONS", [], "default")
    make_engine(settings["CATLOG_DATABASE_URL"]).dispose()
    Console(file=io.StringIO()).print("[green]a line[/]")


def _import_all(value: Any) -> None:
    if isinstance(value, BaseSettings | dict):
        for key, component in value.items():
            _import_all(key)
            _import_all(component)
    elif isinstance(value, str) and "." in value:
        try:
            load_object(value)
        except Exception:  # not used, or not installed: a crawl that needs it will say so
            return


def project_files() -> list[str]:
    """The project's own modules, and their folders: a change there makes this process stale."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    here = os.environ["PYTHONPATH"].partition(os.pathsep)[0] + os.sep
    own = {file for file in files if file and file.startswith(here) and SITE not in file}
    return sorted(own | {str(Path(file).parent) for file in own})


def _fork_obstacle(before: set[str]) -> str | None:
    """What stands against going on in a fork of this process; *before* were its descriptors."""
    opened = sorted(open_descriptors() - before)
    if opened:
        return f"importing the project opened files and did not close them: {', '.join(opened)}"
    if child_processes():
        return "importing the project started a process"
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        return f"importing the project started threads: {names}"
    if "twisted.internet.reactor" in sys.modules:
        return "importing the project installed a reactor"
    return None


@dataclass
class Child:
    """A process that runs an attempt. `oom_kills` is the machine's count when it began."""

    attempt: str
    oom_kills: int


class Zygote:
    """Starts, signals and buries children, each in a session of its own."""

    def __init__(self, settings: Settings, commands: int, replies: Any, *, is_warm: bool) -> None:
        self.settings = settings
        self.commands = commands
        # Whatever the project has started at import is its own affair.
        self.helpers = child_processes()
        self.replies = replies
        self.is_warm = is_warm
        self.children: dict[int, Child] = {}

    def serve(self) -> None:
        """Do as told until the input ends, then kill what is left."""
        wake, bell = os.pipe()
        for end in (wake, bell):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        # Signals of the terminal are the node's to deal with.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        told = b""
        while True:
            ready, _, _ = select.select([self.commands, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._reap_children()
            if self.commands in ready:
                said = os.read(self.commands, 65536)
                if not said:
                    break
                *lines, told = (told + said).split(b"\n")
                for line in lines:
                    self._do(orjson.loads(line))
        for pid in self.children:
            kill_group(pid)

    def _do(self, command: dict[str, Any]) -> None:
        if "run" in command:
            self._run(command["run"], command["log"])
            return
        for pid, child in self.children.items():
            # Not buried yet, so the pid is still the child's.
            if child.attempt == command["signal"]:
                os.kill(pid, command["number"])

    def _run(self, attempt: str, log: str) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._reply({"refused": attempt, "error": f"no new process: {error.strerror}"})
            return
        if pid == 0:
            self._run_child(attempt, log, parent)
        self.children[pid] = Child(attempt, oom_kills())
        self._reply({"began": attempt, "pid": pid})

    def _run_child(self, attempt: str, log: str, parent: int) -> NoReturn:
        """In the child: be rid of all that is the zygote's, and run the attempt."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            become_subreaper()
            die_with_parent(parent)
            _take_over_output(log)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.environ["CATLOG_ATTEMPT"] = attempt
            if not self.is_warm:
                os.execv(sys.executable, [sys.executable, "-m", "scrapy", *CRAWL])
            status = _run_warm(self.settings, AttemptName.parse(attempt))
        except BaseException:  # the end of this process, whatever it was
            traceback.print_exc()
        finally:
            with suppress(Exception):  # the disk is full, say, or the spider closed them
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap_children(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                child = self.children.pop(pid, None)
                if child:
                    # A browser, say, that it left behind.
                    kill_group(pid)
                    oom = oom_kills() > child.oom_kills
                    self._reply({"ended": child.attempt, "status": status, "oom": oom})
        for orphan in child_processes() - self.helpers - set(self.children):
            kill(orphan)

    def _reply(self, answer: dict[str, Any]) -> None:
        try:
            self.replies.write(_line(answer))
        except BrokenPipeError:
            return  # the node is gone; so is the input, in a moment


# `scrapy crawl` finds its spider, as its arguments, by the attempt.
CRAWL = ("crawl", "-")


def _run_warm(settings: Settings, name: AttemptName) -> int:
    engine = make_engine(settings["CATLOG_DATABASE_URL"])
    try:
        return run_attempt(engine, settings, make_console(), name)
    finally:
        engine.dispose()


def _take_over_output(log: str) -> None:
    """Log to *log*; where that cannot be, only the log is lost."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, flags, 0o644)
    except OSError:
        output = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _line(answer: dict[str, Any]) -> bytes:
    return orjson.dumps(answer) + b"\n"


if __name__ == "__main__":
    main()
