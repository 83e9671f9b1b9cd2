"""Coalescing of calls to a slow function."""

from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


class CoalescingRunner:
    """Runs *function* in a thread, coalescing calls made while it runs into one further run.

    Every call is followed by a run that starts after the call. In the reactor's thread, *arguments*
    supplies the arguments of each run, and *then* receives the result.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        arguments: Callable[[], tuple[Any, ...]] = tuple,
        then: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.then = then
        self.is_busy = False
        self._is_called_again = False

    def __call__(self) -> None:
        """Run the function soon: now, or after the present run."""
        self._is_called_again = self.is_busy
        if self.is_busy:
            return
        self.is_busy = True
        running = deferToThread(self.function, *self.arguments())
        running.addCallback(self.then)
        running.addErrback(self._log_failure)
        running.addBoth(self._finish)

    def _log_failure(self, failure: Failure) -> None:
        log.failure("{what} failed", failure, what=self.function.__qualname__)

    def _finish(self, _: object) -> None:
        self.is_busy = False
        if self._is_called_again:
            self()
