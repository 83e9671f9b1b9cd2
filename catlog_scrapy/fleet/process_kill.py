"""Stop of a spider's process: a request, a delay, then the kill."""

import signal
import time
from dataclasses import dataclass, field

from twisted.internet import defer

from catlog_scrapy.fleet.zygote_client import ZygoteProcess
from catlog_scrapy.store.queue.attempts import AttemptName

# Time that a process gets to stop before it is killed.
KILL_DELAY_S = 10.0
# The same by the database's reply. A process knows its own time limit and gets time to report. A
# process whose attempt has ended may still close its spider. A process that never began is killed.
KILL_DELAYS_S = {"timed_out": 25.0, "ended": 600.0, "unbegun": 0.0}


@dataclass
class RunningAttempt:
    """An attempt that runs on this node.

    `reply` is the database's reply for the attempt: a reply other than "go" is the reason to stop,
    known since `stop_requested_at`. `freed` fires when the slot is free again, which may be later
    than the end of the process.
    """

    attempt: AttemptName
    zygote: ZygoteProcess
    freed: "defer.Deferred[None]" = field(default_factory=defer.Deferred)
    reply: str = "go"
    stop_requested_at: float = 0.0
    has_exited: bool = False

    def request_stop(self, reply: str) -> None:
        """Let the process stop for the reason *reply*; the first reason counts."""
        if self.reply != "go":
            return
        self.reply, self.stop_requested_at = reply, time.monotonic()
        # At its time limit a process stops by itself, and reports what it has done so far.
        if reply in ("cancel", "lost", "release"):
            self.signal(signal.SIGINT)

    def kill_if_overdue(self) -> None:
        """Kill the process if it has not stopped in time; later its zygote."""
        if self.reply == "go" or self.has_exited:
            return
        delay_s = KILL_DELAYS_S.get(self.reply, KILL_DELAY_S)
        overdue_s = time.monotonic() - self.stop_requested_at - delay_s
        if overdue_s > KILL_DELAY_S:
            self.zygote.kill()  # the zygote, too, does not respond
        elif overdue_s > 0:
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.zygote.signal(str(self.attempt), number)
