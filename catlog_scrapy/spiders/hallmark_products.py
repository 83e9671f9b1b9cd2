"""The products of one year in the Hallmark ornament shop."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import Product

AVAILABILITY = {"In stock": "available", "Sold out": "unavailable"}


class HallmarkProducts(Spider):
    """A year's page, at `url`, shows 48 products and links to the next 48.

    What is sold out stays listed, sometimes with a dash for its price.
    """

    name = "hallmark_products"
    record = Product
    vendor = "hallmark_ornaments_com"
    base_url: str = ""
    year: str = ""
    url: str = ""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(self.url or f"{self.base_url}/year/{self.year}")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any] | Request]:
        """Raises ValueError where there are no products, or no way to the rest of them."""
        cards = response.css("ul.product-grid > li.product-card")
        if not cards:
            raise ValueError(f"{response.url} has no product grid: the markup has changed.")
        for card in cards:
            stock = card.css(".product-stock::text").get("")
            yield {
                "vendor": self.vendor,
                "sku": card.attrib.get("data-sku"),
                "name": card.css(".product-name::text").get(),
                "price": plain_price(card.css(".product-price::text").get("")),
                "brand": card.css(".product-brand::text").get(),
                "availability": AVAILABILITY.get(stock, stock),
                "release_year": self.year,
                "link": card.css("a.product-link::attr(href)").get(),
            }
        if next_page := response.css("a[rel=next]::attr(href)").get():
            yield response.follow(next_page)
            return
        # Without this, a changed pagination would pass off the first page as the whole year.
        last, total = response.css(".result-count::text").re(r"–(\d+) of (\d+)") or ("?", "all")
        if last != total:
            raise ValueError(
                f"{response.url} ends at product {last} of {total}, with no link to the next page:"
                " the markup has changed."
            )


def plain_price(text: str) -> str | None:
    """*text* without its currency sign, spaces and thousand separators; None for a dash.

    >>> plain_price("$ 1,234.50")
    '1234.50'
    """
    return None if text == "—" else text.strip("$\N{NO-BREAK SPACE} ").replace(",", "")
