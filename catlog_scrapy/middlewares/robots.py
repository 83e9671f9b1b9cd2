"""robots.txt for every request, also for those that come while it is fetched."""

from scrapy import Request
from scrapy.downloadermiddlewares import robotstxt
from scrapy.robotstxt import RobotParser
from scrapy.utils.httpobj import urlparse_cached


class RobotsTxtMiddleware(robotstxt.RobotsTxtMiddleware):
    """Scrapy's own, but for a fault of it.

    Of several requests that wait for one robots.txt, Scrapy 2.19 gives the parser to the first
    alone: they await one Deferred, which has no result for the others, and they pass.
    """

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """What says whether *request* is allowed; None where nothing does."""
        await super().robot_parser(request)
        parser = self._parsers[urlparse_cached(request).netloc]
        assert parser is None or isinstance(parser, RobotParser)
        return parser
