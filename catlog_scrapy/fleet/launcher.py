"""Launcher: runs each claim in a process of its own, and supervises how the process ends.

The process reports the outcome of its attempt itself. The launcher is the supervisor: when a
process has ended without a report, the launcher closes the attempt at once.
"""

import signal
import time
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
from catlog_scrapy.fleet.process_exit import ProcessExit
from catlog_scrapy.fleet.process_kill import KILL_DELAY_S, RunningAttempt
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue import jobs
from catlog_scrapy.store.queue.attempts import AttemptName

log = Logger()

# Intervals of the checks of running attempts, and of the queue's maintenance.
CHECK_INTERVAL_S = 1.0
MAINTENANCE_INTERVAL_S = 5.0
# Interval of attempts to close an attempt while the database is unavailable.
CLOSE_RETRY_INTERVAL_S = 1.0
# Time that a zygote gets to exit when the node stops.
ZYGOTE_EXIT_TIMEOUT_S = 2.0
# Each web request, poll, check and closing takes a thread while it waits for the database.
MAX_THREADS = 20

# Outcome and error of an attempt whose process was stopped, by the database's reply.
STOPPED_OUTCOMES = {
    "lost": ("lost", "the lease expired"),
    "release": ("released", "released: the node stopped"),
    "timed_out": ("timed_out", "the attempt exceeded its time limit and did not stop by itself"),
    "unbegun": ("timed_out", "the process did not begin within start_timeout"),
}


class Launcher(Service):
    """Runs claims in the node's slots. A slot becomes free however its process ends."""

    name = "launcher"

    def __init__(self, config: Config, app: Any) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.node: NodeService = node_of(config)
        self.app = app
        self.finished: JobStorage = app.getComponent(IJobStorage)
        self.max_proc = self.node.slots
        self.attempts: dict[AttemptName, RunningAttempt] = {}
        # Also called after each attempt: its end may have made a catalog ready to publish.
        self.maintenance = CoalescingRunner(self.node.run_maintenance)
        self.loops = {
            LoopingCall(self.check_leases): CHECK_INTERVAL_S,
            LoopingCall(self._kill_overdue): CHECK_INTERVAL_S,
            LoopingCall(self.maintenance): MAINTENANCE_INTERVAL_S,
        }
        self.reactor.suggestThreadPoolSize(MAX_THREADS)

    @property
    def poller(self) -> Poller:
        """Return the node's poller."""
        poller: Poller = self.app.getComponent(IPoller)
        return poller

    @property
    def processes(self) -> dict[int, Job]:
        """Return the running jobs of all nodes under arbitrary keys. Queries the database."""
        return dict(enumerate(map(job_of, jobs.running(self.node.engine))))

    def startService(self) -> None:
        """Offer all slots to the poller, and start the loops."""
        super().startService()
        slots = counted(self.max_proc, "slot")
        log.info("node {name}: {slots}", name=self.node.name, slots=slots)
        for _ in range(self.max_proc):
            self._offer_slot()
        for loop, seconds in self.loops.items():
            loop.start(seconds, now=False)

    def _offer_slot(self) -> None:
        self.poller.next().addCallback(self._run)

    def _run(self, message: Message) -> None:
        claim, zygote = message["claim"], message["zygote"]
        running = RunningAttempt(claim.attempt, zygote)
        self.attempts[claim.attempt] = running
        log.info("{title}: attempt {name}", title=claim.title, name=claim.attempt)
        log_file = str(self.node.logs / f"{claim.attempt}.log")
        if self.node.is_draining:  # the claim was made just before the node began to stop
            self._close(running, *STOPPED_OUTCOMES["release"], give_up_at=0.0)
            return
        zygote.run(str(claim.attempt), log_file, lambda exit_: self._exited(running, exit_))

    def _exited(self, running: RunningAttempt, exit_: ProcessExit) -> None:
        running.has_exited = True
        outcome, error = STOPPED_OUTCOMES.get(running.reply, (exit_.outcome, str(exit_)))
        if exit_.is_nodes_fault:
            self.node.note_failed_start(str(exit_))
        else:
            self.node.failed_starts = 0
        self._close(running, outcome, error, give_up_at=time.monotonic() + self.node.lease)

    def _close(self, running: RunningAttempt, outcome: str, error: str, give_up_at: float) -> None:
        """Close the attempt, unless its process did, and free the slot.

        While the database is unavailable, it is tried again until *give_up_at*. Later, the expired
        lease ends the attempt.
        """
        closing = deferToThread(self.node.close_attempt, running.attempt, outcome, error)

        def closed(final: str) -> None:
            log.info("attempt {name}: {outcome}", name=running.attempt, outcome=final)
            self._free(running)

        def failed(failure: Failure) -> None:
            if failure.check(*UNAVAILABLE) and time.monotonic() < give_up_at:
                self.reactor.callLater(
                    CLOSE_RETRY_INTERVAL_S, self._close, running, outcome, error, give_up_at
                )
                return
            log.failure(
                "attempt {name} cannot be closed; its lease will expire",
                failure,
                name=running.attempt,
            )
            self._free(running)

        closing.addCallbacks(closed, failed)

    def _free(self, running: RunningAttempt) -> None:
        del self.attempts[running.attempt]
        self.node.running.pop(running.attempt, None)
        running.freed.callback(None)
        self.maintenance()
        self._offer_slot()
        self.poller.poll()

    def check_leases(self) -> "defer.Deferred[Any] | None":
        """Stop the attempts that the database says to stop."""
        if not self.attempts:
            return None
        asking = deferToThread(self.node.lease_replies)
        asking.addCallback(self._handle_replies)
        # Without a database, the processes themselves stop when their leases expire.
        asking.addErrback(
            lambda failure: log.warn("attempts are not checked: {error}", error=failure.value)
        )
        return asking

    def _handle_replies(self, replies: dict[AttemptName, str]) -> None:
        for name, reply in replies.items():
            if reply != "go" and (running := self.attempts.get(name)):
                running.request_stop(reply)

    def _kill_overdue(self) -> None:
        for running in list(self.attempts.values()):
            running.kill_if_overdue()

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        """Drain the node: claim nothing, and release what still runs after CATLOG_GRACE seconds."""
        super().stopService()
        self.node.is_draining = True
        yield self._wait_until_idle(self.poller.polling)
        if self.attempts:
            yield self._drain()
        for loop in self.loops:
            if loop.running:
                loop.stop()
        yield self._wait_until_idle(self.maintenance, self.poller.polling)
        for zygote in self.node.projects.zygotes.all():
            zygote.close()
            yield self._wait(zygote.exited, ZYGOTE_EXIT_TIMEOUT_S)
            zygote.kill()
            yield self._wait(zygote.exited, KILL_DELAY_S)
        yield self._wait(deferToThread(self.node.close), KILL_DELAY_S)
        # The node has stopped as asked: twistd would exit by the signal itself.
        self.reactor._exitSignal = None

    @defer.inlineCallbacks
    def _drain(self) -> Any:
        freed = defer.DeferredList([running.freed for running in self.attempts.values()])
        log.info("draining: {spiders}", spiders=counted(len(self.attempts), "running spider"))
        yield self._wait(freed, self.node.grace)
        for running in self.attempts.values():
            running.request_stop("release")
        yield self._wait(freed, KILL_DELAY_S)
        for running in self.attempts.values():
            running.signal(signal.SIGKILL)
        yield self._wait(freed, KILL_DELAY_S)

    @defer.inlineCallbacks
    def _wait_until_idle(self, *runners: CoalescingRunner) -> Any:
        """Wait for runs that use the database, for KILL_DELAY_S at most."""
        end = time.monotonic() + KILL_DELAY_S
        while any(runner.is_busy for runner in runners) and time.monotonic() < end:
            yield deferLater(self.reactor, 0.02)

    def _wait(self, awaited: "defer.Deferred[Any]", timeout_s: float) -> "defer.Deferred[Any]":
        """Return a deferred that fires when *awaited* does, or after *timeout_s*."""
        either: defer.Deferred[None] = defer.Deferred()
        call = self.reactor.callLater(timeout_s, either.callback, None)

        def fire(result: Any) -> Any:
            if call.active():
                call.cancel()
                either.callback(None)
            return result

        awaited.addBoth(fire)
        return either
