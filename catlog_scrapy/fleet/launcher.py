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
from catlog_scrapy.fleet.coalescing import OneAtATime
from catlog_scrapy.fleet.jobstorage import Job, JobStorage, job_of
from catlog_scrapy.fleet.node import Node, node_of
from catlog_scrapy.fleet.poller import Message, Poller
from catlog_scrapy.fleet.zygotes import End, WarmParent
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.queue.attempts import AttemptName

log = Logger()

# Seconds between two looks at what the database says of what runs here, and between two at what
# else there is to do.
WATCH_EVERY = 1.0
TEND_EVERY = 5.0
# Seconds from being told to stop until it is killed.
KILL_AFTER = 10.0
# The same for those who know by themselves, hang, and can still say so; and who never began.
# What has ended well may have something of its own to close.
PATIENCE = {"timed_out": 25.0, "ended": 600.0, "unbegun": 0.0}
# Seconds that a verdict waits for a database that is away; then the lease speaks.
VERDICT_AGAIN = 1.0

# What ends an attempt whose process had to be killed for it.
VERDICTS = {
    "lost": ("lost", "its lease was over"),
    "release": ("released", "released: its node stopped"),
    "timed_out": ("timed_out", "it ran past its time limit and did not stop by itself"),
    "unbegun": ("timed_out", "its process had not begun within start_timeout"),
}


@dataclass
class Process:
    """An attempt that runs here; `answer` is why it has to end, since `told_at`.

    `ended` fires when its slot is free again, which may be a while after the process `is_over`.
    """

    name: AttemptName
    parent: WarmParent
    ended: "defer.Deferred[None]" = field(default_factory=defer.Deferred)
    answer: str = "go"
    told_at: float = 0.0
    is_over: bool = False


class Launcher(Service):
    """Fills the node's slots and empties them, whatever becomes of the processes."""

    name = "launcher"

    def __init__(self, config: Config, app: Any) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.node: Node = node_of(config)
        self.app = app
        self.finished: JobStorage = app.getComponent(IJobStorage)
        self.max_proc = self.node.slots
        self.mine: dict[AttemptName, Process] = {}
        # Once more at the end of each attempt: something may just have become ready.
        self.tending = OneAtATime(self.node.tend)
        self.loops = {
            LoopingCall(self.look): WATCH_EVERY,
            LoopingCall(self._kill_overdue): WATCH_EVERY,
            LoopingCall(self.tending): TEND_EVERY,
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
            self._offer_slot()
        for loop, seconds in self.loops.items():
            loop.start(seconds, now=False)

    def _offer_slot(self) -> None:
        self.poller.next().addCallback(self._run)

    def _run(self, message: Message) -> None:
        claimed, parent = message["claim"], message["parent"]
        process = Process(claimed.attempt, parent)
        self.mine[claimed.attempt] = process
        log.info("{title}: attempt {name}", title=claimed.title, name=claimed.attempt)
        log_file = str(self.node.logs / f"{claimed.attempt}.log")
        if self.node.is_draining:  # it was claimed a moment before
            self._close(process, "released", "released: its node stopped", give_up_at=0.0)
            return
        parent.run(str(claimed.attempt), log_file, lambda end: self._ended(process, end))

    def _ended(self, process: Process, end: End) -> None:
        """The second witness: what no first one has said is said here, at once."""
        process.is_over = True
        outcome, error = VERDICTS.get(process.answer, (end.outcome, str(end)))
        if end.is_nodes_fault:
            self.node.did_not_start(str(end))
        else:
            self.node.failed_starts = 0
        self._close(process, outcome, error, give_up_at=time.monotonic() + self.node.lease)

    def _close(self, process: Process, outcome: str, error: str, give_up_at: float) -> None:
        closing = deferToThread(self.node.close_attempt, process.name, outcome, error)

        def closed(how: str) -> None:
            log.info("attempt {name}: {how}", name=process.name, how=how)
            self._free(process)

        def failed(failure: Failure) -> None:
            if failure.check(*UNAVAILABLE) and time.monotonic() < give_up_at:
                self.reactor.callLater(
                    VERDICT_AGAIN, self._close, process, outcome, error, give_up_at
                )
                return
            log.failure("attempt {name}: its end is left to its lease", failure, name=process.name)
            self._free(process)

        closing.addCallbacks(closed, failed)

    def _free(self, process: Process) -> None:
        del self.mine[process.name]
        self.node.running.pop(process.name, None)
        process.ended.callback(None)
        self.tending()
        self._offer_slot()
        self.poller.poll()

    def look(self) -> "defer.Deferred[Any] | None":
        """Stop what the database says is to stop."""
        if not self.mine:
            return None
        asking = deferToThread(self.node.answers)
        asking.addCallback(self._answered)
        # Without a database the processes know by themselves when their lease is over.
        asking.addErrback(lambda why: log.warn("no look at what runs: {why}", why=why.value))
        return asking

    def _answered(self, answers: dict[AttemptName, str]) -> None:
        for name, answer in answers.items():
            if answer != "go" and (process := self.mine.get(name)):
                self._stop(process, answer)

    def _stop(self, process: Process, answer: str) -> None:
        if process.answer != "go":
            return
        process.answer, process.told_at = answer, time.monotonic()
        # Past its time it stops by itself, and can say what it has done so far.
        if answer in ("cancel", "lost", "release"):
            process.parent.signal(str(process.name), signal.SIGINT)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for process in list(self.mine.values()):
            if process.answer == "go" or process.is_over:
                continue
            late = now - process.told_at - PATIENCE.get(process.answer, KILL_AFTER)
            if late > KILL_AFTER:
                process.parent.kill()  # nor does the one who was to kill it answer
            elif late > 0:
                process.parent.signal(str(process.name), signal.SIGKILL)

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        """Drain: nothing new; what runs may go on for CATLOG_GRACE seconds and is then released."""
        super().stopService()
        self.node.is_draining = True
        yield self._quiet(lambda: self.poller.polling.is_busy)
        running = defer.DeferredList([process.ended for process in self.mine.values()])
        if self.mine:
            log.info("draining: {count} spiders run", count=len(self.mine))
            yield self._within(running, self.node.grace)
            for process in self.mine.values():
                self._stop(process, "release")
            yield self._within(running, KILL_AFTER)
            for process in self.mine.values():
                process.parent.signal(str(process.name), signal.SIGKILL)
            yield self._within(running, KILL_AFTER)
        for loop in self.loops:
            if loop.running:
                loop.stop()
        yield self._quiet(lambda: self.tending.is_busy or self.poller.polling.is_busy)
        for parent in self.node.projects.all_parents():
            parent.close()
            yield self._within(parent.gone, 2.0)
            parent.kill()
            yield self._within(parent.gone, KILL_AFTER)
        yield self._within(deferToThread(self.node.close), KILL_AFTER)
        self.reactor._exitSignal = None  # drained as asked: twistd would end by the signal itself

    @defer.inlineCallbacks
    def _quiet(self, is_busy: Callable[[], bool]) -> Any:
        """Wait until a thread is back from the database, but not for ever."""
        end = time.monotonic() + KILL_AFTER
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
