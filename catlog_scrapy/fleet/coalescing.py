"""Work for a thread that is asked for more often than it can be done."""

from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


class CoalescingRunner:
    """Does *work* in a thread when it is called; called while that goes on, then once more.

    A call is answered by work that began after it. What the work comes to is handed to *then*, in
    the reactor; *arguments* says, there too, what it is called with.
    """

    def __init__(
        self,
        work: Callable[..., Any],
        *,
        arguments: Callable[[], tuple[Any, ...]] = tuple,
        then: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.work = work
        self.arguments = arguments
        self.then = then
        self.is_busy = False
        self._is_asked_again = False

    def __call__(self) -> None:
        self._is_asked_again = self.is_busy
        if self.is_busy:
            return
        self.is_busy = True
        doing = deferToThread(self.work, *self.arguments())
        doing.addCallback(self.then)
        doing.addErrback(self._failed)
        doing.addBoth(self._done)

    def _failed(self, failure: Failure) -> None:
        log.failure("{what} failed", failure, what=self.work.__qualname__)

    def _done(self, _: object) -> None:
        self.is_busy = False
        if self._is_asked_again:
            self()
