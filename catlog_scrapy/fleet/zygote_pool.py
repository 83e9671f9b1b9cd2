"""Pool of zygote processes: one for each version of a project's code."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from twisted.internet.threads import blockingCallFromThread

from catlog_scrapy.fleet.project_code import ProjectCode
from catlog_scrapy.fleet.zygote_client import ZygoteProcess

T = TypeVar("T")

# Time limit of importing a project.
IMPORT_TIMEOUT_S = 60.0
# While a zygote of this age is still importing, the node claims nothing.
STARTUP_TIMEOUT_S = 10.0
# Pauses before a zygote is started again, after a failed import and after any other exit.
RETRY_FAILED_IMPORT_AFTER_S = 10.0
RETRY_KILLED_ZYGOTE_AFTER_S = 3.0


class ZygotePool:
    """Starts, restarts and retires the zygote processes of a node.

    Its public methods may be called in any thread but the reactor's.
    """

    def __init__(self, environment: Mapping[str, str], *, cold: bool) -> None:
        self.environment = environment
        self.cold = cold
        self._zygotes: dict[ProjectCode, ZygoteProcess] = {}
        self._retired: list[ZygoteProcess] = []

    def running(self, code: ProjectCode) -> ZygoteProcess:
        """Return the zygote of *code* without a look at its files, or start it."""
        return self._zygotes.get(code) or self.current(code)

    def current(self, code: ProjectCode) -> ZygoteProcess:
        """Return the zygote of *code*, which may still be importing it.

        A zygote that has ended, or that has imported former files, is replaced.
        """
        zygote = self._zygotes.get(code)
        if zygote is None or _should_restart(zygote):
            zygote = _in_reactor(lambda: self._start(code, instead_of=zygote))
        return zygote

    def _start(self, code: ProjectCode, instead_of: ZygoteProcess | None) -> ZygoteProcess:
        from twisted.internet import reactor

        former = self._zygotes.get(code)
        if former is not None and former is not instead_of:
            return former  # another thread has replaced it meanwhile
        if former is not None and former.is_alive:
            self._retire(former)
        zygote = ZygoteProcess(code.environment(self.environment), cold=self.cold)
        cast(Any, reactor).callLater(IMPORT_TIMEOUT_S, zygote.kill_if_importing)
        self._zygotes[code] = zygote
        return zygote

    def retire_all_but(self, needed: Iterable[ProjectCode]) -> None:
        """Retire the zygotes of code that is not *needed*."""
        if self._zygotes:
            codes = set(needed)
            _in_reactor(lambda: self._retire_all_but(codes))

    def _retire_all_but(self, needed: set[ProjectCode]) -> None:
        for code in set(self._zygotes) - needed:
            self._retire(self._zygotes.pop(code))

    def _retire(self, zygote: ZygoteProcess) -> None:
        zygote.retire()
        self._retired = [former for former in [*self._retired, zygote] if former.is_alive]

    def ready(self) -> frozenset[ZygoteProcess]:
        """Return the zygotes that can start spiders."""
        return frozenset(zygote for zygote in list(self._zygotes.values()) if zygote.is_ready())

    def is_starting(self) -> bool:
        """Return whether a project may become ready in a moment."""
        return any(
            not zygote.capabilities.done() and zygote.age() < STARTUP_TIMEOUT_S
            for zygote in list(self._zygotes.values())
        )

    def all(self) -> list[ZygoteProcess]:
        """Return all zygotes, the retired ones included."""
        return [*self._zygotes.values(), *self._retired]


def _should_restart(zygote: ZygoteProcess) -> bool:
    if zygote.is_stale():
        return True
    wait = RETRY_FAILED_IMPORT_AFTER_S if zygote.has_failed else RETRY_KILLED_ZYGOTE_AFTER_S
    return not zygote.is_alive and zygote.age() > wait


def _in_reactor(work: Callable[[], T]) -> T:
    from twisted.internet import reactor

    return blockingCallFromThread(reactor, work)
