"""Sees which requests came to nothing: given up, or ignored."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.python.failure import Failure

from catlog_scrapy.attempt import Attempt, running_attempt

OFFSITE = "Filtered offsite request"
ROBOTS = "Forbidden by robots.txt"


class OutcomeMiddleware:
    """The outermost downloader middleware: it gives every request an errback that bears witness.

    Scrapy calls an errback exactly for what a spider asked for, after all retries and redirects,
    with the last word on the matter: an exception, or a response whose status is not allowed.
    robots.txt, media files and `engine.download_async` have no errback called, so they do not
    count; nor do duplicate, offsite and too deep requests, which the project filtered by intent.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "OutcomeMiddleware":
        return cls(running_attempt(crawler))

    def process_request(self, request: Request) -> None:
        """Put the witness around the request's own errback, once."""
        if not hasattr(request.errback, "bears_witness"):
            request.errback = self._witness(request.errback)

    def _witness(self, errback: Callable[..., Any] | None) -> Callable[..., Any]:
        """An errback that does what *errback* does, and notes a failure that it lets pass."""

        def witness(failure: Failure) -> Any:
            if errback is None:
                return self._note(failure)
            try:
                output = errback(failure)
            except Exception as error:
                self._note_if_same(failure, error)
                raise
            if inspect.iscoroutine(output):
                return self._awaited(failure, output)
            return self._note(output) if isinstance(output, Failure) else output

        if errback is not None:
            functools.update_wrapper(witness, errback)
        witness.bears_witness = True  # type: ignore[attr-defined]
        return witness

    async def _awaited(self, failure: Failure, output: Any) -> Any:
        try:
            return await output
        except Exception as error:
            self._note_if_same(failure, error)
            raise

    def _note_if_same(self, failure: Failure, error: Exception) -> None:
        # Another exception is the errback's own: Scrapy reports that one as a spider error.
        if error is failure.value:
            self._note(failure)

    def _note(self, failure: Failure) -> Failure:
        error = failure.value
        request = getattr(failure, "request", None)
        url = request.url if request is not None else "?"
        text = str(error)
        if isinstance(error, HttpError):
            self.attempt.given_up("given_up", f"HTTP {error.response.status} for {url}")
        elif isinstance(error, IgnoreRequest) and text.startswith(ROBOTS):
            self.attempt.given_up("ignored", f"forbidden by robots.txt: {url}")
        elif not (isinstance(error, IgnoreRequest) and text.startswith(OFFSITE)):
            self.attempt.given_up("given_up", f"{type(error).__name__}: {text} for {url}")
        return failure
