"""Isolation: an attempt runs in a child process, which contains its leaks, blocks and crashes."""

import asyncio
import contextlib
import os
import signal
import sys

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.db.engine import UNAVAILABLE
from catlog_scrapy.store.queue.leases import supervise
from catlog_scrapy.store.reading.status import attempt_outcome

# Time between SIGTERM and SIGKILL.
KILL_DELAY_S = 10.0


async def run_isolated(attempt: Attempt) -> None:
    """Run *attempt* as `scrapy crawl` in a child process; end it when the attempt has to stop."""
    log = attempt.report.log or os.devnull
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scrapy",
        "crawl",
        attempt.claim.spider,
        "--logfile",
        log,
        env={**os.environ, "CATLOG_ATTEMPT": str(attempt.claim.attempt)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # The parent alone gets the terminal's signals, and decides about its children.
        start_new_session=True,
    )
    stop = asyncio.Event()
    attempt.on_stop(stop.set)
    stopped = asyncio.ensure_future(stop.wait())
    start_timeout = asyncio.ensure_future(_enforce_start_timeout(attempt))
    ended = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            child.send_signal(signal.SIGTERM)
            await asyncio.wait([ended], timeout=KILL_DELAY_S)
    finally:
        stopped.cancel()
        start_timeout.cancel()
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        status = await ended
    found = await asyncio.to_thread(attempt_outcome, attempt.engine, attempt.claim.attempt)
    attempt.report.accepted, attempt.outcome = found
    if attempt.outcome is None:
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        attempt.record_error("its process ended", RuntimeError(cause))


async def _enforce_start_timeout(attempt: Attempt) -> None:
    """Stop an attempt whose child hangs before it can enforce `start_timeout` itself."""
    seconds = attempt.claim.limits.get("start_timeout")
    if seconds is None:
        return
    await asyncio.sleep(seconds)
    name = attempt.claim.attempt
    while True:
        with contextlib.suppress(*UNAVAILABLE):
            if (await asyncio.to_thread(supervise, attempt.engine, [name]))[name] == "unbegun":
                attempt.stop("timed_out", f"its process had not begun after {seconds:g} s")
            return
        await asyncio.sleep(1)
