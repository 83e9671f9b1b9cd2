"""Zygote: a process that has imported a project, and forks a spider process in milliseconds.

`python -m catlog_scrapy.fleet.zygote [cold]` imports the project of its environment. It has no
reactor, thread or connection that a child could inherit. It reads commands from its standard input
and writes messages to its standard output, each a line of JSON. When its input ends, it kills its
children and exits.

Commands: `{"run": ATTEMPT, "log": FILE}` and `{"signal": ATTEMPT, "number": N}`.

Messages: first `{"capabilities": {...}, "obstacle": REASON|null, "files": [...]}` or
`{"failed": REASON, "files": [...]}`. Then `{"started": ATTEMPT, "pid": N}`,
`{"not_started": ATTEMPT, "error": REASON}` and
`{"ended": ATTEMPT, "status": N, "oom": true|false}`, with N as of waitpid.

A child that starts cold executes `scrapy crawl` in a new interpreter. All children start cold if
the argument is given, or if the import of the project has side effects (see `fork_obstacle`).
"""

import gc
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson
from scrapy.settings import Settings

from catlog_scrapy.console import make_console
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.fleet.preloading import fork_obstacle, preload_project, project_files
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

# Arguments of `scrapy` in a cold child. The command reads spider and arguments from the attempt.
CRAWL = ("crawl", "-")


def main() -> None:
    """Import the project, report its capabilities, and obey commands until the input ends."""
    die_with_parent(os.getppid())
    # The project must neither print into the messages nor read the commands.
    messages = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    commands = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    descriptors_before = open_descriptors()
    try:
        settings, capabilities = preload_project()
    except BaseException as error:  # the boundary to the project's modules: they may raise anything
        traceback.print_exc()
        text = str(error) if isinstance(error, CatlogError) else f"{type(error).__name__}: {error}"
        messages.write(_line({"failed": text, "files": project_files()}))
        sys.exit(1)
    obstacle = "warm = off" if "cold" in sys.argv[1:] else fork_obstacle(descriptors_before)
    ready = {"capabilities": asdict(capabilities), "obstacle": obstacle, "files": project_files()}
    messages.write(_line(ready))
    # A collection would write to, and so copy, every page that zygote and children share.
    gc.collect()
    gc.freeze()
    with suppress(Exception):  # the project may have closed stdout
        sys.stdout.flush()
    # From here on the end of its input tells the zygote that the node has ended. It must live long
    # enough to kill its children.
    die_with_parent(os.getppid(), 0)
    become_subreaper()
    Zygote(settings, commands, messages, is_cold=obstacle is not None).serve()


@dataclass
class Child:
    """Process of an attempt. `oom_kills_before` is the machine's count at its start."""

    attempt: str
    oom_kills_before: int


class Zygote:
    """Starts, signals and reaps children, each in a session of its own."""

    def __init__(self, settings: Settings, commands: int, messages: Any, *, is_cold: bool) -> None:
        self.settings = settings
        self.commands = commands
        self.messages = messages
        self.is_cold = is_cold
        self.children: dict[int, Child] = {}
        # Processes that the project started at import are not reaped or killed here.
        self.project_processes = child_processes()

    def serve(self) -> None:
        """Obey commands until the input ends, then kill the remaining children."""
        wakeup, notify = os.pipe()
        for end in (wakeup, notify):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        # The node handles the signals of the terminal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        unread = b""
        while True:
            ready, _, _ = select.select([self.commands, wakeup], [], [])
            if wakeup in ready:
                os.read(wakeup, 4096)
                self._reap_children()
            if self.commands in ready:
                received = os.read(self.commands, 65536)
                if not received:
                    break
                *lines, unread = (unread + received).split(b"\n")
                for line in lines:
                    self._obey(orjson.loads(line))
        for pid in self.children:
            kill_group(pid)

    def _obey(self, command: dict[str, Any]) -> None:
        if "run" in command:
            self._fork_child(command["run"], command["log"])
            return
        for pid, child in self.children.items():
            # The child is not reaped yet, so no other process has its pid.
            if child.attempt == command["signal"]:
                os.kill(pid, command["number"])

    def _fork_child(self, attempt: str, log: str) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._send({"not_started": attempt, "error": f"fork failed: {error.strerror}"})
            return
        if pid == 0:
            self._run_child(attempt, log, parent)
        self.children[pid] = Child(attempt, oom_kills())
        self._send({"started": attempt, "pid": pid})

    def _run_child(self, attempt: str, log: str, parent: int) -> NoReturn:
        """Release what belongs to the zygote, run the attempt, and exit."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            become_subreaper()
            die_with_parent(parent)
            _redirect_output(log)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.environ["CATLOG_ATTEMPT"] = attempt
            if self.is_cold:
                os.execv(sys.executable, [sys.executable, "-m", "scrapy", *CRAWL])
            status = _run_attempt(self.settings, AttemptName.parse(attempt))
        except BaseException:  # the boundary of the process
            traceback.print_exc()
        finally:
            with suppress(Exception):  # the disk may be full, or the spider has closed the streams
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
                    # The child may leave processes behind, such as a browser.
                    kill_group(pid)
                    oom = oom_kills() > child.oom_kills_before
                    self._send({"ended": child.attempt, "status": status, "oom": oom})
        for orphan in child_processes() - self.project_processes - set(self.children):
            kill(orphan)

    def _send(self, message: dict[str, Any]) -> None:
        # The pipe breaks when the node has ended. Then the input ends, too.
        with suppress(BrokenPipeError):
            self.messages.write(_line(message))


def _run_attempt(settings: Settings, name: AttemptName) -> int:
    engine = make_engine(settings["CATLOG_DATABASE_URL"])
    try:
        return run_attempt(engine, settings, make_console(), name)
    finally:
        engine.dispose()


def _redirect_output(log: str) -> None:
    """Append the output to *log*. If that is not possible, only the log is lost."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, flags, 0o644)
    except OSError:
        output = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def _line(message: dict[str, Any]) -> bytes:
    return orjson.dumps(message) + b"\n"


if __name__ == "__main__":
    main()
