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
    """Resource that renders in a thread, where it may query the database."""

    def render(self, request: Request) -> Any:
        """Render in a thread, and reply if the client still waits."""
        disconnects: list[Failure] = []
        request.notifyFinish().addErrback(disconnects.append)

        def send(body: bytes) -> None:
            if not disconnects:
                request.write(body)
                request.finish()

        def fail(failure: Failure) -> None:
            if not disconnects:
                request.processingFailed(failure)

        deferToThread(super().render, request).addCallback(send).addErrback(fail)
        return NOT_DONE_YET


class ErrorReplies(Resource):
    """Resource that replies with scrapyd's errors where the client can act: correct, or wait."""

    def render(self, request: Request) -> Any:
        """Render, and turn catlog's errors into scrapyd's."""
        try:
            return super().render(request)
        except CatlogError as refused:
            raise error.Error(http.OK, message=str(refused).encode()) from refused
        except UNAVAILABLE as unavailable:
            text = f"the database is unavailable: {reason(unavailable)}; try again"
            raise error.Error(http.SERVICE_UNAVAILABLE, message=text.encode()) from unavailable
