"""Base classes of the node's web resources."""

from typing import Any

from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web import error, http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import CatlogError


class ThreadedResource(Resource):
    """Renders in a thread, where the database may be asked."""

    def render(self, request: Request) -> Any:
        exited: list[Failure] = []
        request.notifyFinish().addErrback(exited.append)

        def answer(body: bytes) -> None:
            if not exited:
                request.write(body)
                request.finish()

        def failed(failure: Failure) -> None:
            if not exited:
                request.processingFailed(failure)

        deferToThread(super().render, request).addCallback(answer).addErrback(failed)
        return NOT_DONE_YET


class ErrorReplies(Resource):
    """Turns what a client can mend, or has to wait for, into scrapyd's errors."""

    def render(self, request: Request) -> Any:
        try:
            return super().render(request)
        except CatlogError as mistake:
            raise error.Error(http.OK, message=str(mistake).encode()) from mistake
        except UNAVAILABLE as away:
            text = f"the database is away: {reason(away)}; try again"
            raise error.Error(http.SERVICE_UNAVAILABLE, message=text.encode()) from away
