"""Runs what is claimed, each in a process of its own, and is the second witness of how it ended."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scrapyd.config import Config
from scrapyd.interfaces import IJobStorage, IPoller
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from catlog_scrapy.db.engine import UNAVAILABLE
from catlog_scrapy.fleet.coalescing import CoalescingRunner
from catlog_scrapy.fleet.jobstorage import Job, JobStorage, job_of
from catlog_scrapy.fleet.node import NodeService, node_of
from catlog_scrapy.fleet.poller import Message, Poller
from catlog_scrapy.fleet.zygotes import ProcessExit, ZygoteProcess
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.queue.attempts import AttemptName

log = Logger()

# Seconds between two looks at what the database says of what runs here, and between two at what
# else there is to do.
WATCH_INTERVAL_S = 1.0
MAINTENANCE_INTERVAL_S = 5.0
# Seconds from being told to stop until it is killed.
KILL_DELAY_S = 10.0
# The same for those who know by themselves, hang, and can still say so; and who never began.
# What has ended well may have something of its own to close.
KILL_DELAYS_S = {"timed_out": 25.0, "ended": 600.0, "unbegun": 0.0}
# Seconds that a verdict waits for a database that is away; then the lease speaks.
REPORT_RETRY_INTERVAL_S = 1.0

# What ends an attempt whose process had to be killed for it.
FORCED_OUTCOMES = {
    "lost": ("lost", "its lease was over"),
    "release": ("released", "released: its node stopped"),
    "timed_out": ("timed_out", "it ran past its time limit and did not stop by itself"),
    "unbegun": ("timed_out", "its process had not begun within start_timeout"),
}


@dataclass
class RunningAttempt:
    """An attempt that runs here; `reply` is why it has to end, since `stop_requested_at`.

    `ended` fires when its slot is free again, which may be a while after the process `is_over`.
    """

    attempt: AttemptName
    zygote: ZygoteProcess
    ended: "defer.Deferred[None]" = field(default_factory=defer.Deferred)
    reply: str = "go"
    stop_requested_at: float = 0.0
    is_over: bool = False


class Launcher(Service):
    """Fills the node's slots and empties them, whatever becomes of the processes."""

    name = "launcher"

    def __init__(self, config: Config, app: Any) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.node: NodeService = node_of(config)
        self.app = app
        self.finished: JobStorage = app.getComponent(IJobStorage)
        self.max_proc = self.node.slots
        self.running_here: dict[AttemptName, RunningAttempt] = {}
        # Once more at the end of each attempt: something may just have become ready.
        self.maintenance = CoalescingRunner(self.node.run_maintenance)
        self.loops = {
            LoopingCall(self.check_leases): WATCH_INTERVAL_S,
            LoopingCall(self._kill_overdue): WATCH_INTERVAL_S,
            LoopingCall(self.maintenance): MAINTENANCE_INTERVAL_S,
        }
        # Each web request, poll, look and verdict takes one while it waits for the database.
        self.reactor.suggestThreadPoolSize(20)

    @property
    def poller(self) -> Poller:
        """Where what is claimed comes from."""
        poller: Poller = self.app.getComponent(IPoller)
        return poller

    @property
    def processes(self) -> dict[int, Job]:
        """What runs, on all nodes, by any number. For threads only."""
        return dict(enumerate(map(job_of, jobs.running(self.node.engine))))

    def startService(self) -> None:
        super().startService()
        log.info("node {name}: {slots} slots", name=self.node.name, slots=self.max_proc)
        for _ in range(self.max_proc):
            self._request_claim()
        for loop, seconds in self.loops.items():
            loop.start(seconds, now=False)

    def _request_claim(self) -> None:
        self.poller.next().addCallback(self._run)

    def _run(self, message: Message) -> None:
        claimed, zygote = message["claim"], message["zygote"]
        process = RunningAttempt(claimed.attempt, zygote)
        self.running_here[claimed.attempt] = process
        log.info("{title}: attempt {name}", title=claimed.title, name=claimed.attempt)
        log_file = str(self.node.logs / f"{claimed.attempt}.log")
        if self.node.is_draining:  # it was claimed a moment before
            self._close(process, "released", "released: its node stopped", give_up_at=0.0)
            return
        zygote.run(str(claimed.attempt), log_file, lambda end: self._ended(process, end))

    def _ended(self, process: RunningAttempt, end: ProcessExit) -> None:
        """The second witness: what no first one has said is said here, at once."""
        process.is_over = True
        outcome, error = FORCED_OUTCOMES.get(process.reply, (end.outcome, str(end)))
        if end.is_nodes_fault:
            self.node.note_failed_start(str(end))
        else:
            self.node.failed_starts = 0
        self._close(process, outcome, error, give_up_at=time.monotonic() + self.node.lease)

    def _close(self, process: RunningAttempt, outcome: str, error: str, give_up_at: float) -> None:
        closing = deferToThread(self.node.close_attempt, process.attempt, outcome, error)

        def closed(how: str) -> None:
            log.info("attempt {name}: {how}", name=process.attempt, how=how)
            self._free(process)

        def failed(failure: Failure) -> None:
            if failure.check(*UNAVAILABLE) and time.monotonic() < give_up_at:
                self.reactor.callLater(
                    REPORT_RETRY_INTERVAL_S, self._close, process, outcome, error, give_up_at
                )
                return
            log.failure(
                "attempt {name}: its end is left to its lease", failure, name=process.attempt
            )
            self._free(process)

        closing.addCallbacks(closed, failed)

    def _free(self, process: RunningAttempt) -> None:
        del self.running_here[process.attempt]
        self.node.running.pop(process.attempt, None)
        process.ended.callback(None)
        self.maintenance()
        self._request_claim()
        self.poller.poll()

    def check_leases(self) -> "defer.Deferred[Any] | None":
        """Stop what the database says is to stop."""
        if not self.running_here:
            return None
        asking = deferToThread(self.node.lease_replies)
        asking.addCallback(self._handle_reply)
        # Without a database the processes know by themselves when their lease is over.
        asking.addErrback(lambda why: log.warn("no look at what runs: {why}", why=why.value))
        return asking

    def _handle_reply(self, replies: dict[AttemptName, str]) -> None:
        for name, reply in replies.items():
            if reply != "go" and (process := self.running_here.get(name)):
                self._stop(process, reply)

    def _stop(self, process: RunningAttempt, reply: str) -> None:
        if process.reply != "go":
            return
        process.reply, process.stop_requested_at = reply, time.monotonic()
        # Past its time it stops by itself, and can say what it has done so far.
        if reply in ("cancel", "lost", "release"):
            process.zygote.signal(str(process.attempt), signal.SIGINT)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for process in list(self.running_here.values()):
            if process.reply == "go" or process.is_over:
                continue
            late = now - process.stop_requested_at - KILL_DELAYS_S.get(process.reply, KILL_DELAY_S)
            if late > KILL_DELAY_S:
                process.zygote.kill()  # nor does the one who was to kill it reply
            elif late > 0:
                process.zygote.signal(str(process.attempt), signal.SIGKILL)

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        """Drain: nothing new; what runs may go on for CATLOG_GRACE seconds and is then released."""
        super().stopService()
        self.node.is_draining = True
        yield self._quiet(lambda: self.poller.polling.is_busy)
        running = defer.DeferredList([process.ended for process in self.running_here.values()])
        if self.running_here:
            log.info("draining: {count} spiders run", count=len(self.running_here))
            yield self._within(running, self.node.grace)
            for process in self.running_here.values():
                self._stop(process, "release")
            yield self._within(running, KILL_DELAY_S)
            for process in self.running_here.values():
                process.zygote.signal(str(process.attempt), signal.SIGKILL)
            yield self._within(running, KILL_DELAY_S)
        for loop in self.loops:
            if loop.running:
                loop.stop()
        yield self._quiet(lambda: self.maintenance.is_busy or self.poller.polling.is_busy)
        for zygote in self.node.projects.all_zygotes():
            zygote.close()
            yield self._within(zygote.exited, 2.0)
            zygote.kill()
            yield self._within(zygote.exited, KILL_DELAY_S)
        yield self._within(deferToThread(self.node.close), KILL_DELAY_S)
        self.reactor._exitSignal = None  # drained as asked: twistd would end by the signal itself

    @defer.inlineCallbacks
    def _quiet(self, is_busy: Callable[[], bool]) -> Any:
        """Wait until a thread is back from the database, but not for ever."""
        end = time.monotonic() + KILL_DELAY_S
        while is_busy() and time.monotonic() < end:
            yield deferLater(self.reactor, 0.02)

    def _within(self, awaited: "defer.Deferred[Any]", seconds: float) -> "defer.Deferred[Any]":
        """Fires when *awaited* does, or after *seconds*."""
        either: defer.Deferred[None] = defer.Deferred()
        call = self.reactor.callLater(seconds, either.callback, None)

        def done(result: Any) -> Any:
            if call.active():
                call.cancel()
                either.callback(None)
            return result

        awaited.addBoth(done)
        return either
