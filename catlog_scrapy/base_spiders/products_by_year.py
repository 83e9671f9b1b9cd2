"""Shops that list products by year, with or without a page for each product."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import Product
from catlog_scrapy.records import Unchanged

# A price has two decimals. Its thousands are grouped, or not separated.
PRICES = {
    "USD": re.compile(r"\s*\$\s*((?:\d+|\d{1,3}(?:,\d{3})+)\.\d\d)\s*"),
    "EUR": re.compile(r"\s*((?:\d+|\d{1,3}(?:\.\d{3})+),\d\d)\s*€\s*"),
}


class ProductsByYear(Spider):
    """Spider of product listings: of a `year`, at a `url`, or found by `sku`.

    A listing names the range and total of its products ("1–48 of 354") and links to the next
    listing. A subclass describes the shop's pages. `site` is the shop's public address, used in
    `link`. The spider reads the shop at `base_url`, which may be a copy of the site.
    """

    record = Product
    base_url: str = ""
    year: str = ""
    url: str = ""
    sku: str = ""

    vendor: ClassVar[str]
    site: ClassVar[str]
    currency: ClassVar[str] = "USD"
    # Paths below `base_url`, with {} for the year or the sku.
    year_path: ClassVar[str]
    sku_path: ClassVar[str]
    # CSS selectors: range and total, link to the next page, link to the view of all products.
    count: ClassVar[str]
    next_page: ClassVar[str]
    view_all: ClassVar[str] = ""
    # The shop's labels of the record fields, and its two words for the availability.
    labels: ClassVar[Mapping[str, str]]
    stock: ClassVar[Mapping[str, str]]

    async def start(self) -> AsyncIterator[Any]:
        """Request the listing. Raises ValueError without year, url and sku."""
        if self.url:
            yield Request(_moved(self.url, self.site, self.base_url))
        elif self.sku:
            yield Request(f"{self.base_url}/{self.sku_path.format(quote(self.sku, safe=''))}")
        elif self.year:
            yield Request(f"{self.base_url}/{self.year_path.format(self.year)}")
        else:
            raise ValueError("the spider has no page to read; set the argument year, url or sku.")

    def parse(self, response: Response, shown: int = 0, **_: Any) -> Iterator[Any]:
        """Yield the products of a listing that follows *shown* products, and the next request.

        Raises ValueError if products or the link to the next listing are missing.
        """
        if self.view_all and (everything := response.css(self.view_all).get()):
            yield response.follow(everything)
            return
        entries = list(self.entries(response))
        numbers = [int(number) for number in response.css(self.count).re(r"\d+")]
        if not entries or len(numbers) != 3:
            absent = f"the shop does not sell {self.sku}, or " if self.sku else ""
            raise ValueError(f"{response.url} lists no products: {absent}the markup has changed.")
        first, last, total = numbers
        # A `url` may be any page of a listing. A year begins with its first product.
        begins_wrong = first != shown + 1 and (shown or self.year)
        if begins_wrong or last - first + 1 != len(entries):
            raise ValueError(
                f"{response.url} has {len(entries)} products, but claims {first} to {last} of"
                f" {total} after {shown}: the markup has changed."
            )
        yield from entries
        if next_page := response.css(self.next_page).get():
            yield response.follow(next_page, cb_kwargs={"shown": last})
        elif last != total:
            raise ValueError(
                f"{response.url} ends at product {last} of {total}, with no link to the next page:"
                " the markup has changed."
            )

    def entries(self, response: Response) -> Iterator[Any]:
        """Yield an item, or a request for the product's page, for each product of a listing."""
        raise NotImplementedError

    def item(self, response: Response, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Build the item of a product from a page's texts by label.

        Raises ValueError for a product of another year than the requested one.
        """
        labels = {"image_url": "image_url", **self.labels}
        texts = {name: facts.get(label) for name, label in labels.items()}
        year, image = texts.get("release_year"), texts.get("image_url")
        if self.year and year and str(year) != self.year:
            raise ValueError(f"a product of {year} is listed under {self.year}: {facts}")
        return {
            **texts,
            "vendor": self.vendor,
            "image_url": response.urljoin(image) if image else None,
            "price": plain_price(texts.get("price") or "", self.currency),
            "currency": self.currency,
            "availability": self.stock.get(str(texts["availability"]), texts["availability"]),
        }


class ProductPages(ProductsByYear):
    """Spider that reads the page of each listed product that is not `fresh`.

    A `url` may also be a product's page.
    """

    fresh: Mapping[str, Any] = {}

    # CSS selectors: product links of a listing, name and picture of a product's page.
    links: ClassVar[str]
    title: ClassVar[str]
    picture: ClassVar[str]

    def parse(self, response: Response, shown: int = 0, **_: Any) -> Iterator[Any]:
        """Yield the item of a product's page, or the products of a listing."""
        if response.css(self.title):
            yield self.product(response, _moved(response.url, self.base_url, self.site))
        else:
            yield from super().parse(response, shown)

    def entries(self, response: Response) -> Iterator[Any]:
        """Yield `Unchanged` for a fresh product, unless the `sku` asks for it, or a request."""
        for address in response.css(self.links).getall():
            link = _moved(response.urljoin(address), self.base_url, self.site)
            if link in self.fresh and not self.sku:
                yield Unchanged(self.fresh[link])
            else:
                yield response.follow(address, self.parse_product, cb_kwargs={"link": link})

    def parse_product(self, response: Response, link: str) -> Iterator[dict[str, Any]]:
        """Yield the item of the product at *link*. Raises ValueError for another page."""
        if _moved(response.url, self.base_url, self.site) != link:
            raise ValueError(f"{link} leads to {response.url}: the product has moved.")
        if not response.css(self.title):
            raise ValueError(f"{response.url} is not a product's page: the markup has changed.")
        yield self.product(response, link)

    def product(self, response: Response, link: str) -> dict[str, Any]:
        """Build the item of a product's page."""
        name = response.css(self.title).get()
        facts = {**self.facts(response), "image_url": response.css(self.picture).get()}
        return {**self.item(response, facts), "name": name, "link": link}

    def facts(self, response: Response) -> dict[str, str | None]:
        """Return the texts of a product's page by label."""
        raise NotImplementedError


def plain_price(text: str, currency: str) -> str | None:
    """Return a price as a plain number, None for a dash, and any other text as it is.

    >>> plain_price("1.234,50 €", "EUR")
    '1234.50'
    """
    if text.strip() == "—":
        return None
    found = PRICES[currency].fullmatch(text)
    if not found:
        return text
    whole, cents = found[1][:-3], found[1][-2:]
    return f"{re.sub(r'[.,]', '', whole)}.{cents}"


def _moved(url: str, here: str, there: str) -> str:
    """Move a *url* below *here* to the address *there*. Other URLs stay as they are."""
    return there + url.removeprefix(here) if url.startswith(f"{here}/") else url
