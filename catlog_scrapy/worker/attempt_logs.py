"""Log files, one per attempt, even if many attempts run in one process."""

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from scrapy.settings import BaseSettings

from catlog_scrapy.crawl.log_faults import report_faults_once

# Time since its last line after which a log cannot belong to a running attempt.
MIN_IDLE_S = 3600.0

_current: ContextVar[logging.Handler | None] = ContextVar("attempt_log", default=None)


class AttemptLogs(logging.Handler):
    """Log handler that passes each record to the file of the attempt in whose context it came.

    asyncio copies the context into each task, callback and thread. So the records of a spider, a
    library or a pipeline reach their attempt's file.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on; drop it outside of an attempt."""
        handler = _current.get()
        if handler is not None:
            handler.handle(record)


def install_attempt_logs(settings: BaseSettings) -> None:
    """Send the root logger's records to AttemptLogs, once per process."""
    logs = AttemptLogs(settings.get("LOG_LEVEL", "INFO"))
    logging.root.addHandler(logs)
    logging.root.setLevel(logging.NOTSET)
    # Scrapy sets these levels only with its own root handler, which is not installed.
    logging.getLogger("twisted").setLevel(logging.ERROR)
    logging.getLogger("scrapy").setLevel(logging.DEBUG)
    logging.captureWarnings(True)


@contextmanager
def attempt_log(path: str | None, settings: BaseSettings) -> Iterator[None]:
    """Log to *path* within the block and the tasks that it starts; a full disk costs only logs."""
    handler: logging.Handler = logging.NullHandler()
    if path:
        with contextlib.suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
            report_faults_once(handler)
    handler.setFormatter(logging.Formatter(settings["LOG_FORMAT"], settings["LOG_DATEFORMAT"]))
    token = _current.set(handler)
    try:
        yield
    finally:
        _current.reset(token)
        with contextlib.suppress(OSError):
            handler.close()


def logs_folder(settings: BaseSettings) -> Path:
    """Return the folder of this machine's attempt logs."""
    return Path(settings["CATLOG_HOME"]) / "logs"


def logs_to_delete(settings: BaseSettings) -> list[Path]:
    """Return the logs beyond CATLOG_LOG_KEEP and CATLOG_LOG_SIZE."""
    keep, size = (settings.getfloat(f"CATLOG_LOG_{bound}") for bound in ("KEEP", "SIZE"))
    return old_logs(logs_folder(settings), keep, size)


def old_logs(folder: Path, keep: float, size: float) -> list[Path]:
    """Return the logs in *folder* to delete, the oldest first.

    These are all logs older than *keep* seconds, and as many more as the rest needs to have at most
    *size* bytes. A log that may still be written to stays, so the folder may exceed *size* for
    MIN_IDLE_S.
    """
    found = []
    for log in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # another process may delete logs too
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
