"""Goods of the ornament shops, and their changes.

The products of a year are an endless series. A shop shows a window of the series, newest first.
Each change lowers or restores some prices, and in DEMO_YEARS moves the window on by one product. A
shop with fewer years (`World.years`) has the same products in each year.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from catlog_scrapy.demo.pictures import picture
from catlog_scrapy.demo.source import YEARS, DemoReply, DemoRequest, World

# Years of a short demo: the years of known size, and a year with known products.
DEMO_YEARS = (1973, 1974, 1975, 1976, 2014)
SALE = Decimal("2.00")


class Theme(NamedTuple):
    """Theme of many products. Some products have a number in the series of their years."""

    name: str
    since: int
    brand: str


# Number of pictures of a shop.
IMAGES = 24


class ShopProduct(NamedTuple):
    """Product of a shop. A product without price will not be sold again."""

    year: int
    sku: str
    name: str
    brand: str
    price: Decimal | None
    in_stock: bool
    path: str

    @property
    def image(self) -> str:
        """Return the path of the picture. Many products share a picture."""
        return f"media/{zlib.crc32(self.sku.encode()) % IMAGES}.png"


class Goods:
    """Products of a shop. A subclass defines the products and the size of each year."""

    themes: Sequence[Theme]
    variants: Sequence[str]
    prices: Sequence[str]
    rare_prices: Sequence[str] = ("1234.50", "1095.00")
    # Names and prices of a year's newest products at step 0.
    featured: Mapping[int, Sequence[tuple[str, str]]] = {}

    def size(self, year: int) -> int:
        """Return the number of products of *year*."""
        raise NotImplementedError

    def sku(self, year: int, index: int, price: str) -> str:
        """Return a product's number, which `place` can parse."""
        raise NotImplementedError

    def path(self, year: int, name: str, sku: str) -> str:
        """Return the path of a product's page."""
        raise NotImplementedError

    def place(self, sku: str) -> tuple[int, int] | None:
        """Parse year and index from a product's number. Returns None for another text."""
        raise NotImplementedError

    def products(self, year: int, step: int = 0) -> Iterator[ShopProduct]:
        """Return the products of *year* after *step* changes, in the order of the pages."""
        return (self.product(year, index, step) for index in self.window(year, step))

    def window(self, year: int, step: int) -> range:
        """Return the indexes of the visible products, newest first."""
        oldest = step if year in DEMO_YEARS else 0
        return range(oldest, oldest + self.size(year))[::-1]

    def find(self, sku: str, world: World) -> ShopProduct | None:
        """Return the product with a number, if it is visible in this world."""
        year, index = self.place(sku) or (0, 0)
        if year not in world.years or index not in self.window(year, world.step):
            return None
        found = self.product(year, index, world.step)
        return found if found.sku == sku else None

    def product(self, year: int, index: int, step: int) -> ShopProduct:
        """Return a product of the series of *year* after *step* changes."""
        themes = self._themes[year]
        theme = themes[index % len(themes)]
        variant = self.variants[index // len(themes) % len(self.variants)]
        name, brand = f"{theme.name} {variant or f'#{year - theme.since + 1}'}", theme.brand
        price = self.prices[(index * 7 + year) % len(self.prices)]
        if index % 97 == 13:
            price = self.rare_prices[year % len(self.rare_prices)]
        in_stock = (index * 7 + year) % 12 != 0

        featured = self.featured.get(year, ())
        place = index - self.size(year) + len(featured)
        if 0 <= place < len(featured):
            (name, price), brand, in_stock = featured[place], "Hallmark Keepsake", True

        sku = self.sku(year, index, price)
        # Each change touches every eighth product; the smallest year has twelve.
        on_sale = (step + index % 8) // 8 % 2 == 1
        return ShopProduct(
            year=year,
            sku=sku,
            name=f"{year} {name}",
            brand=brand,
            price=Decimal(price) - SALE * on_sale if in_stock or index % 2 else None,
            in_stock=in_stock,
            path=self.path(year, name, sku),
        )

    @cached_property
    def _themes(self) -> dict[int, list[Theme]]:
        """Return the themes of each year."""
        return {year: [one for one in self.themes if one.since <= year] for year in YEARS}


def page_number(request: DemoRequest, pages: int) -> int | None:
    """Return the requested page number, from 1 to *pages*, or None for any other number."""
    text = request.query.get("page", "1")
    return int(text) if text.isdecimal() and 1 <= int(text) <= pages else None


def slug(name: str) -> str:
    """Return *name* as a part of an address."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")


def full_year(digits: str) -> int:
    """Return the year of YEARS that ends in two *digits*."""
    return YEARS.start // 100 * 100 + int(digits) + 100 * (int(digits) < YEARS.start % 100)


def image_reply(path: str) -> DemoReply | None:
    """Return the picture at *path*, or None."""
    return picture(path) if re.fullmatch(r"media/\d+\.png", path) else None
