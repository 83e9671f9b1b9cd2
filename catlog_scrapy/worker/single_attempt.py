"""Run of one claimed attempt in a process of its own."""

import os
import traceback
from contextlib import suppress
from dataclasses import replace

from rich.console import Console
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claims import Claim, begin
from catlog_scrapy.worker.attempt_runner import AttemptRunner
from catlog_scrapy.worker.progress import Progress

# EX_TEMPFAIL of sysexits.h: the process could not store the outcome of its attempt.
EXIT_OUTCOME_UNKNOWN = 75
# EX_CONFIG: the process could not load its project.
EXIT_PROJECT_NOT_LOADED = 78


def run_attempt(engine: Engine, settings: Settings, console: Console, name: AttemptName) -> int:
    """Run an attempt that another process has claimed for this one.

    Returns the exit status: 0 if the attempt is done, else 1; EXIT_OUTCOME_UNKNOWN if the attempt
    was lost; EXIT_PROJECT_NOT_LOADED if it was never begun. Raises NotFound for an attempt that is
    not waiting to be begun.
    """
    # The process that sends the signal has already waited for the grace period.
    settings.set("CATLOG_GRACE", 0.0, "cmdline")
    progress = Progress(console)
    try:
        runner = SingleAttemptRunner(
            engine, settings, progress, logs=None, replace=lambda: os._exit(EXIT_OUTCOME_UNKNOWN)
        )
    except Exception:  # the boundary to the project's modules: they may raise anything
        with suppress(OSError):
            traceback.print_exc()
        return EXIT_PROJECT_NOT_LOADED
    try:
        claimed = replace(begin(engine, name, os.getpid()), isolate=False)
    except UNAVAILABLE as error:
        # No retry: the attempt may have been marked as begun.
        progress.print_line(f"the database is unavailable: {reason(error)}")
        return EXIT_OUTCOME_UNKNOWN
    runner.claim = claimed
    runner.run()
    outcome = runner.attempt.outcome if runner.attempt else None
    return {"done": 0, "lost": EXIT_OUTCOME_UNKNOWN}.get(outcome or "", 1)


class SingleAttemptRunner(AttemptRunner):
    """Runner of one claim."""

    claim: Claim
    attempt: Attempt | None = None

    async def _main(self) -> None:
        self.begin(self.claim)
        [self.attempt] = self.running.values()
