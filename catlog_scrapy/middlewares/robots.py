"""robots.txt for every request, by RFC 9309."""

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares import robotstxt
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.robotstxt import RobotParser
from scrapy.utils.httpobj import urlparse_cached

from catlog_scrapy.crawl.attempt import running_attempt


class RobotsTxtMiddleware(robotstxt.RobotsTxtMiddleware):
    """Scrapy's middleware, with two fixes.

    When several requests wait for one robots.txt, Scrapy 2.19 gives the parser to the first only:
    all await one Deferred, which has no result for the others, so they pass unchecked.

    A robots.txt that cannot be reached (a server or network error) forbids everything (RFC 9309,
    2.3.1.4); Scrapy allows everything then. With `tolerate.unreachable_robots` the host counts
    instead.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self.attempt = running_attempt(crawler)
        self.is_tolerant = self.attempt.tolerates("unreachable_robots")
        self.unreachable: dict[str, str] = {}

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the parser of the robots.txt of *request*'s host; None without a file.

        Raises IgnoreRequest for a robots.txt that cannot be reached.
        """
        await super().robot_parser(request)
        host = urlparse_cached(request).netloc
        if (fault := self.unreachable.get(host)) and not self.is_tolerant:
            self._stats.inc_value("robotstxt/forbidden")
            raise IgnoreRequest(f"Forbidden by robots.txt, which cannot be reached ({fault})")
        parser = self._parsers[host]
        assert parser is None or isinstance(parser, RobotParser)
        return parser

    async def _parse_robots(self, response: Response, netloc: str, request: Request) -> None:
        if response.status >= 500:
            self._note_unreachable(netloc, f"HTTP {response.status}")
        if response.status >= 400:  # the body is an error page
            response = response.replace(body=b"")
        await super()._parse_robots(response, netloc, request)

    def _robots_error(self, exc: Exception, netloc: str) -> None:
        # A component that filters the request of robots.txt, or a loop of redirects: the file is
        # not available, which allows everything.
        if not isinstance(exc, IgnoreRequest):
            self._note_unreachable(netloc, f"{type(exc).__name__}: {exc}")
        super()._robots_error(exc, netloc)

    def _note_unreachable(self, netloc: str, fault: str) -> None:
        self.unreachable[netloc] = fault
        if self.is_tolerant:
            self.attempt.record_failed_request(
                "unreachable_robots", f"the robots.txt of {netloc} cannot be reached ({fault})"
            )
