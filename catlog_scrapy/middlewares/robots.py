"""robots.txt for every request, including those that come while robots.txt is fetched."""

from scrapy import Request
from scrapy.downloadermiddlewares import robotstxt
from scrapy.robotstxt import RobotParser
from scrapy.utils.httpobj import urlparse_cached


class RobotsTxtMiddleware(robotstxt.RobotsTxtMiddleware):
    """Scrapy's middleware, with a fix for concurrent requests.

    When several requests wait for one robots.txt, Scrapy 2.19 gives the parser to the first only:
    all await one Deferred, which has no result for the others, so they pass unchecked.
    """

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the parser of the robots.txt of *request*'s host; None without a file."""
        await super().robot_parser(request)
        parser = self._parsers[urlparse_cached(request).netloc]
        assert parser is None or isinstance(parser, RobotParser)
        return parser
