"""Links from a shop's first page to the products of each year."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import YearLink


class YearLinks(Spider):
    """Spider of the links to all years on a shop's first page.

    A subclass sets the CSS selector of the links, and the attribute that holds the address.
    """

    record = YearLink
    base_url: str = ""

    vendor: ClassVar[str]
    links: ClassVar[str]
    address: ClassVar[str] = "href"

    async def start(self) -> AsyncIterator[Any]:
        """Request the first page."""
        yield Request(f"{self.base_url}/")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        """Yield an item for each year link. Raises ValueError without links."""
        links = response.css(self.links)
        if not links:
            raise ValueError(f"{response.url} has no year links: the markup has changed.")
        for link in links:
            address = link.attrib.get(self.address)
            yield {
                "vendor": self.vendor,
                "year": link.css("::text").re_first(r"\d{4}"),
                "link": response.urljoin(address) if address else None,
            }
