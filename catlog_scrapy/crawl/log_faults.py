"""Log handlers whose file cannot be written, because its disk is full or its reader has gone."""

import contextlib
import logging
import sys
from typing import Any

# Marks a handler that reports its fault only once.
MARK = "_catlog_reports_once"


def report_faults_once(handler: logging.Handler) -> None:
    """Let *handler* say once on stderr that its lines are lost.

    Python prints a traceback for each line that cannot be written: megabytes in a minute. Lines
    are written again when there is space again.
    """
    if getattr(handler, MARK, False):
        return
    handle_error = handler.handleError
    is_reported = False

    def handle_error_once(record: logging.LogRecord) -> None:
        nonlocal is_reported
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            handle_error(record)
        elif not is_reported:
            is_reported = True
            name = getattr(handler, "baseFilename", "the output")
            with contextlib.suppress(OSError):
                sys.stderr.write(f"log lines are lost: {name}: {error.strerror}\n")

    hooked: Any = handler
    hooked.handleError = handle_error_once
    setattr(handler, MARK, True)
