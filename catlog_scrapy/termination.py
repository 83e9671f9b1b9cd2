"""Orderly end of a process by SIGTERM or SIGHUP.

The default action of both signals ends a process at once: it would leave its embedded server
running.
"""

import os
import signal
import sys
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread like Ctrl-C, so that open contexts are closed."""


def raise_on_termination() -> None:
    """Raise Terminated at the first SIGTERM, and treat SIGHUP of a closed terminal like SIGTERM.

    Where SIGHUP is ignored, as `nohup` does, it stays ignored.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def end_by_sigterm() -> NoReturn:
    """End this process by SIGTERM, as its parent expects of a process that got the signal."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    # The kernel ignores the signal for the first process of a container.
    raise SystemExit(128 + signal.SIGTERM)


def _raise_terminated(*_: object) -> NoReturn:
    # A second signal must not interrupt what the first has begun.
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise Terminated
