"""Ornament shop with year links, product links of each year, and a page for each product.

Known of the original: 48 years from 1973, 6689 products with a page each, and a "view all" link
beside the pages of a year. Invented: all products, the counts of the years, every change, the
search, and the markup with labels in bold.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from html import escape

from catlog_scrapy.demo.hallmark import PRICES, THEMES, VARIANTS
from catlog_scrapy.demo.ornaments import (
    Goods,
    ShopProduct,
    full_year,
    image_reply,
    page_number,
    slug,
)
from catlog_scrapy.demo.source import YEARS, DemoReply, DemoRequest, DemoSource, World

ROOT = "/hooked"
PAGE_SIZE = 60


class HookedGoods(Goods):
    """6689 products over all YEARS."""

    themes = THEMES
    variants = VARIANTS
    prices = PRICES[::-1]

    def size(self, year: int) -> int:
        """Return the number of products of *year*."""
        place = year - YEARS.start
        return 45 + 4 * place + (place < 17)

    def sku(self, year: int, index: int, price: str) -> str:
        """Return a product's number."""
        return f"HOH{year % 100:02}-{index + 1:03}"

    def place(self, sku: str) -> tuple[int, int] | None:
        """Parse year and index from a product's number."""
        found = re.fullmatch(r"HOH(\d\d)-(\d\d\d)", sku)
        return (full_year(found[1]), int(found[2]) - 1) if found else None

    def path(self, year: int, name: str, sku: str) -> str:
        """Return the path of a product's page."""
        return f"products/{year}-{slug(name)}-{sku.lower()}.html"


GOODS = HookedGoods()


def pages(year: int) -> int:
    """Return the number of pages of *year*."""
    return -(-GOODS.size(year) // PAGE_SIZE)


def index_page(years: Collection[int]) -> bytes:
    """Render the page of year links."""
    links = "\n".join(
        f'<td><a href="{ROOT}/year-{year}.html">{year} Ornaments</a></td>' for year in years
    )
    return _page("Shop by Year", f'<table id="years"><tr>\n{links}\n</tr></table>')


@lru_cache(maxsize=1024)
def year_page(year: int, page: int | None, step: int) -> bytes:
    """Render page *page* of the links of *year* after *step* changes, or all links with None."""
    window = GOODS.window(year, step)
    first = ((page or 1) - 1) * PAGE_SIZE
    shown = window[first : first + PAGE_SIZE] if page else window
    path = f"{ROOT}/year-{year}.html"
    links = []
    if page and page < pages(year):
        links.append(f'<a class="next" href="{path}?page={page + 1}">Next &raquo;</a>')
    if page and pages(year) > 1:
        links.append(f'<a class="view-all" href="{path}?view=all">View All</a>')
    return _listing(
        f"{year} Hallmark Ornaments",
        [GOODS.product(year, index, step) for index in shown],
        f"Items {first + 1} to {first + len(shown)} of {len(window)} {' '.join(links)}",
    )


def product_page(product: ShopProduct) -> bytes:
    """Render a product's page."""
    price = "—" if product.price is None else f"$ {product.price:,.2f}"
    stock = "In Stock" if product.in_stock else "Out of Stock"
    name = escape(product.name)
    return _page(
        product.name,
        f"""\
<div id="product">
<img src="{ROOT}/{product.image}" alt="{name}">
<h1>{name}</h1>
<p class="details">
<b>Item #:</b> {product.sku}<br>
<b>Brand:</b> {escape(product.brand)}<br>
<b>Year:</b> {product.year}<br>
<b>Price:</b> {price}<br>
<b>Availability:</b> {stock}
</p>
<p><b>Please note:</b> boxes may show <b>shelf wear</b>.</p>
</div>""",
    )


def _listing(title: str, products: Sequence[ShopProduct], count: str) -> bytes:
    items = "\n".join(
        f'<tr><td><img src="{ROOT}/{product.image}" alt=""></td>'
        f'<td><a class="item" href="{ROOT}/{product.path}">{escape(product.name)}</a></td></tr>'
        for product in products
    )
    return _page(
        title,
        f'<h1>{title}</h1>\n<p class="count">{count}</p>\n<table id="items">\n{items}\n</table>',
    )


def _page(title: str, main: str) -> bytes:
    return f"""\
<!DOCTYPE html>
<html>
<head><meta charset="utf-8"><title>{escape(title)} - Hooked on Ornaments</title></head>
<body>
<div id="top"><a href="{ROOT}/">Shop by Year</a> | <a href="{ROOT}/cart.html">Cart</a>
<form action="{ROOT}/search.html"><input name="item"></form></div>
{main}
</body>
</html>
""".encode()


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve year links, `year-YEAR.html`, `products/...` and `search.html?item=NUMBER`."""
    if request.path == "":
        return DemoReply(index_page(world.years))
    if request.path == "search.html":
        found = GOODS.find(request.query.get("item", ""), world)
        count = "Items 1 to 1 of 1" if found else "No items"
        return DemoReply(_listing("Search", [found] if found else [], count))
    if year := re.fullmatch(r"year-(\d{4})\.html", request.path):
        return _year_reply(int(year[1]), request, world)
    if item := re.fullmatch(r"products/.*-(hoh\d\d-\d+)\.html", request.path):
        product = GOODS.find(item[1].upper(), world)
        if product and product.path == request.path:
            return DemoReply(product_page(product))
    return image_reply(request.path)


def _year_reply(year: int, request: DemoRequest, world: World) -> DemoReply | None:
    if year not in world.years:
        return None
    if request.query.get("view") == "all":
        return DemoReply(year_page(year, None, world.step))
    number = page_number(request, pages(year))
    return DemoReply(year_page(year, number, world.step)) if number else None


SOURCE = DemoSource("hooked", "hookedonhallmark_com", respond)
