"""One log file an attempt, however many run in one process."""

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from scrapy.settings import BaseSettings

# Seconds since its last line for which a log may belong to an attempt that runs.
MIN_IDLE_S = 3600.0

_current: ContextVar[logging.Handler | None] = ContextVar("attempt_log", default=None)


class AttemptLogs(logging.Handler):
    """Sends every record to the file of the attempt in whose context it was logged.

    asyncio copies the context into each task, callback and thread, so what a spider, a library or
    a pipeline logs finds its way by itself.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record on; without an attempt it is nobody's."""
        handler = _current.get()
        if handler is not None:
            handler.handle(record)


def install_attempt_logs(settings: BaseSettings) -> None:
    """Route the root logger, once a process."""
    logs = AttemptLogs(settings.get("LOG_LEVEL", "INFO"))
    logging.root.addHandler(logs)
    logging.root.setLevel(logging.NOTSET)
    # Scrapy sets these where it installs a handler of its own.
    logging.getLogger("twisted").setLevel(logging.ERROR)
    logging.getLogger("scrapy").setLevel(logging.DEBUG)
    logging.captureWarnings(True)


@contextmanager
def attempt_log(path: str | None, settings: BaseSettings) -> Iterator[None]:
    """Within the block, and all that it starts, log to *path*; a full disk costs only the log."""
    handler: logging.Handler = logging.NullHandler()
    if path:
        with contextlib.suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(settings["LOG_FORMAT"], settings["LOG_DATEFORMAT"]))
    token = _current.set(handler)
    try:
        yield
    finally:
        _current.reset(token)
        handler.close()


def logs_folder(settings: BaseSettings) -> Path:
    """Where the attempts of this machine log, each to a file of its own."""
    return Path(settings["CATLOG_HOME"]) / "logs"


def logs_to_delete(settings: BaseSettings) -> list[Path]:
    """Those that are too old, and those that are too many, as *settings* have it."""
    keep, size = (settings.getfloat(f"CATLOG_LOG_{bound}") for bound in ("KEEP", "SIZE"))
    return old_logs(logs_folder(settings), keep, size)


def old_logs(folder: Path, keep: float, size: float) -> list[Path]:
    """The logs in *folder* that may go, the oldest first.

    Those older than *keep* seconds, and then as many as it takes for the rest to have *size*
    bytes together. None that may still be written to: it may well stay larger for an hour.
    """
    found = []
    for log in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # others delete as well
            state = log.stat()
            found.append((state.st_mtime, state.st_size, log))
    now = time.time()
    total = sum(bytes_ for _, bytes_, _ in found)
    old = []
    for written, bytes_, log in sorted(found):
        if now - written <= MIN_IDLE_S:
            break
        if now - written > keep or total > size:
            old.append(log)
            total -= bytes_
    return old
