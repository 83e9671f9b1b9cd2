"""Where shops list the products of each year."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import YearLink


class YearLinks(Spider):
    """Reads the links to all years on a shop's first page.

    A subclass says which elements they are (CSS), and which attribute of theirs is the address.
    """

    record = YearLink
    base_url: str = ""

    vendor: ClassVar[str]
    links: ClassVar[str]
    address: ClassVar[str] = "href"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.base_url}/")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        """Raises ValueError where there are no year links."""
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
