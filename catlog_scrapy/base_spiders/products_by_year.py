"""Shops that list their products by year, with or without a page for each product."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.items.ornaments import Product
from catlog_scrapy.records import Unchanged

# A price has two decimals, and its thousands stand in groups.
PRICES = {
    "USD": re.compile(r"\s*\$\s*((?:\d+|\d{1,3}(?:,\d{3})+)\.\d\d)\s*"),
    "EUR": re.compile(r"\s*((?:\d+|\d{1,3}(?:\.\d{3})+),\d\d)\s*€\s*"),
}


class ProductsByYear(Spider):
    """Reads listings of products: those of `year`, that at `url`, or the finding of `sku`.

    A listing says which of how many products it shows ("1–48 of 354") and leads to the next ones.
    A subclass says how the shop's pages are laid out. `site` is the shop's public address, which
    stands in `link`; it is read at `base_url`, which may be a copy of it.
    """

    record = Product
    base_url: str = ""
    year: str = ""
    url: str = ""
    sku: str = ""

    vendor: ClassVar[str]
    site: ClassVar[str]
    currency: ClassVar[str] = "USD"
    # Below `base_url`, with {} for the year or the sku.
    year_path: ClassVar[str]
    sku_path: ClassVar[str]
    # CSS: what says the three numbers, and the links to the next page and to all on one page.
    count: ClassVar[str]
    next_page: ClassVar[str]
    view_all: ClassVar[str] = ""
    # What the shop calls the fields of a record, and the two states of its stock.
    labels: ClassVar[Mapping[str, str]]
    stock: ClassVar[Mapping[str, str]]

    async def start(self) -> AsyncIterator[Any]:
        """Raises ValueError where nothing says what to read."""
        if self.url:
            yield Request(_moved(self.url, self.site, self.base_url))
        elif self.sku:
            yield Request(f"{self.base_url}/{self.sku_path.format(quote(self.sku, safe=''))}")
        elif self.year:
            yield Request(f"{self.base_url}/{self.year_path.format(self.year)}")
        else:
            raise ValueError("there is nothing to read; give a year, a url or a sku.")

    def parse(self, response: Response, shown: int = 0, **_: Any) -> Iterator[Any]:
        """Read a listing that follows *shown* products.

        Raises ValueError where products are missing, or the way to the rest of them.
        """
        if self.view_all and (everything := response.css(self.view_all).get()):
            yield response.follow(everything)
            return
        entries = list(self.entries(response))
        numbers = [int(number) for number in response.css(self.count).re(r"\d+")]
        if not entries or len(numbers) != 3:
            absent = f"there is no {self.sku}, or " if self.sku else ""
            raise ValueError(f"{response.url} lists no products: {absent}the markup has changed.")
        first, last, total = numbers
        # A page of a listing may be asked for alone; that of a year begins with its first product.
        begins_wrong = first != shown + 1 and (shown or self.year)
        if begins_wrong or last - first + 1 != len(entries):
            raise ValueError(
                f"{response.url} has {len(entries)} products, says {first} to {last} of {total},"
                f" and comes after {shown}: the markup has changed."
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
        """An item, or a request for its page, for each product of a listing."""
        raise NotImplementedError

    def item(self, response: Response, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The item of what a page says of a product, by its labels: texts as the page has them.

        Raises ValueError where it is of another year than the one asked for.
        """
        labels = {"image_url": "image_url", **self.labels}
        said = {name: facts.get(label) for name, label in labels.items()}
        year, image = said.get("release_year"), said.get("image_url")
        if self.year and year and str(year) != self.year:
            raise ValueError(f"a product of {year} is among those of {self.year}: {facts}")
        return {
            **said,
            "vendor": self.vendor,
            "image_url": response.urljoin(image) if image else None,
            "price": plain_price(said.get("price") or "", self.currency),
            "currency": self.currency,
            "availability": self.stock.get(str(said["availability"]), said["availability"]),
        }


class ProductPages(ProductsByYear):
    """Reads the page of each product that a listing links to, and that is not `fresh`.

    A `url` may also be that of a product.
    """

    fresh: Mapping[str, Any] = {}

    # CSS: the addresses of the products in a listing; the name and the picture on a product's page.
    links: ClassVar[str]
    title: ClassVar[str]
    picture: ClassVar[str]

    def parse(self, response: Response, shown: int = 0, **_: Any) -> Iterator[Any]:
        """Read a product's page or, where it is none, a listing."""
        if response.css(self.title):
            yield self.product(response, _moved(response.url, self.base_url, self.site))
        else:
            yield from super().parse(response, shown)

    def entries(self, response: Response) -> Iterator[Any]:
        """Whoever asks for one product by its number wants it read."""
        for address in response.css(self.links).getall():
            link = _moved(response.urljoin(address), self.base_url, self.site)
            if link in self.fresh and not self.sku:
                yield Unchanged(self.fresh[link])
            else:
                yield response.follow(address, self.parse_product, cb_kwargs={"link": link})

    def parse_product(self, response: Response, link: str) -> Iterator[dict[str, Any]]:
        """Read the page of the product at *link*. Raises ValueError where it leads elsewhere."""
        if _moved(response.url, self.base_url, self.site) != link:
            raise ValueError(f"{link} leads to {response.url}: the product has moved.")
        if not response.css(self.title):
            raise ValueError(f"{response.url} is no product's page: the markup has changed.")
        yield self.product(response, link)

    def product(self, response: Response, link: str) -> dict[str, Any]:
        """The item of a product's page."""
        name = response.css(self.title).get()
        facts = {**self.facts(response), "image_url": response.css(self.picture).get()}
        return {**self.item(response, facts), "name": name, "link": link}

    def facts(self, response: Response) -> dict[str, str | None]:
        """What a product's page says, by label."""
        raise NotImplementedError


def plain_price(text: str, currency: str) -> str | None:
    """*text* as a plain number; None for a dash. What is no price of that *currency* is left as is.

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
    """*url* below *there*, if it is below *here*."""
    return there + url.removeprefix(here) if url.startswith(f"{here}/") else url
