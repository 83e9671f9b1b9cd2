"""Where the Hallmark ornament shop lists the products of each year."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import YearLink


class HallmarkYearLinks(Spider):
    """The shop's first page links to a page for every year from 1973."""

    name = "hallmark_year_links"
    record = YearLink
    vendor = "hallmark_ornaments_com"
    base_url: str = ""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.base_url}/")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        """Raises ValueError where there are no year links."""
        links = response.css("ul.year-list a.year-link")
        if not links:
            raise ValueError(f"{response.url} has no year links: the markup has changed.")
        for link in links:
            yield {
                "vendor": self.vendor,
                "year": link.css("::text").get(),
                "url": response.urljoin(link.attrib["href"]),
            }
