"""Progress output for people: a live table on a terminal, plain lines elsewhere."""

import contextlib
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.plurals import counted

# Without a terminal: time between two lines about the running attempts.
REPORT_INTERVAL_S = 15.0

COLOURS = {"done": "green", "released": "yellow", "cancelled": "yellow"}


class Progress:
    """Output about running and ended attempts."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[Attempt, float] = {}
        self.reported_at = time.monotonic()
        self.live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def started(self, attempt: Attempt) -> None:
        """Add a running attempt."""
        self.running[attempt] = time.monotonic()

    def print_line(self, text: str) -> None:
        """Print a line about the work itself."""
        self._print(text, markup=False)

    def report_running(self) -> None:
        """Print a line about each long-running attempt, unless there is a live table."""
        now = time.monotonic()
        if self.live or now - self.reported_at < REPORT_INTERVAL_S:
            return
        self.reported_at = now
        for attempt, since in list(self.running.items()):
            if now - since >= REPORT_INTERVAL_S:
                self._print(
                    f"{attempt.claim.title}: running ({counted(attempt.report.accepted, 'result')},"
                    f" {now - since:.0f} s)",
                    markup=False,
                )

    def ended(self, attempt: Attempt) -> None:
        """Print an attempt's outcome; for a failed attempt also the reason and the log."""
        seconds = time.monotonic() - self.running.pop(attempt, time.monotonic())
        report, outcome = attempt.report, attempt.outcome or "lost"
        colour = COLOURS.get(outcome, "red")
        counts = counted(report.accepted, "result")
        if report.rejected:
            counts += f", {report.rejected} rejected"
        self._print(
            f"{escape(attempt.claim.title)}: [{colour}]{outcome}[/] ({counts}, {seconds:.1f} s)"
        )
        if outcome not in COLOURS:
            self._print(f"  {attempt.error or ''}", markup=False)
            if report.log:
                self._print(f"  log: {report.log}", markup=False, soft_wrap=True)

    def _print(self, text: str, **options: Any) -> None:
        # A full disk or a closed terminal must not end the work.
        with contextlib.suppress(OSError):
            self.console.print(text, **options)

    def _table(self) -> Table:
        table = Table("running", "results", "rejected", "seconds", box=None)
        for attempt, since in list(self.running.items()):
            table.add_row(
                escape(attempt.claim.title),
                str(attempt.report.accepted),
                str(attempt.report.rejected),
                f"{time.monotonic() - since:.0f}",
            )
        return table
