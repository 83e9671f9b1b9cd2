"""Ornament shop with a page of 48 year links, and 48 products on each page of a year.

Known of the original: the years 1973 to 2020, 10270 products, of which 21, 19, 30 and 49 are in the
first four years, the names and prices of the four `featured` products, and pages of products.

Invented: all other products and counts, every change, the search, and the markup. A page's products
are data in a script variable, from which a browser would render them.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape

import orjson

from catlog_scrapy.demo.ornaments import (
    Goods,
    ShopProduct,
    Theme,
    full_year,
    image_reply,
    page_number,
    slug,
)
from catlog_scrapy.demo.source import YEARS, DemoReply, DemoRequest, DemoSource, World

ROOT = "/hallmark"
PAGE_SIZE = 48
# Links have the shop's public address: a local address would put a port into the records' keys.
PUBLIC = "https://hallmark-ornaments.example"
COLUMNS = ("number", "title", "maker", "price", "stock", "year", "url", "image")

THEMES = (
    Theme("Betsey Clark", 1973, "Hallmark"),
    Theme("Santa's Workshop", 1973, "Hallmark Keepsake"),
    Theme("Manger Scene", 1973, "Hallmark"),
    Theme("Elves & Toys", 1973, "Hallmark"),
    Theme("Christmas Is Love", 1973, "Hallmark"),
    Theme("Little Drummer Boy", 1973, "Hallmark Keepsake"),
    Theme("Joyeux Noël", 1974, "Hallmark"),
    Theme("Norman Rockwell", 1974, "Hallmark"),
    Theme("Raggedy Ann & Andy", 1975, "Hallmark"),
    Theme("Baby's First Christmas", 1976, "Hallmark Keepsake"),
    Theme("Crèche", 1976, "Hallmark"),
    Theme("Nostalgia Locomotive", 1976, "Hallmark Keepsake"),
    Theme("Snoopy & Woodstock", 1977, "Peanuts"),
    Theme("Grandmother's House", 1977, "Hallmark"),
    Theme("Carrousel Series", 1978, "Hallmark Keepsake"),
    Theme("Here Comes Santa", 1979, "Hallmark Keepsake"),
    Theme('The "Bellringer" Bear', 1979, "Hallmark Keepsake"),
    Theme("Frosty Friends", 1980, "Hallmark Keepsake"),
    Theme("Rooftop Deliveries", 1980, "Hallmark"),
    Theme("Tin Locomotive", 1982, "Hallmark Keepsake"),
    Theme("Nostalgic Houses & Shops", 1984, "Hallmark Keepsake"),
    Theme("Twelve Days of Christmas", 1984, "Hallmark"),
    Theme("Mr. & Mrs. Claus", 1986, "Hallmark Keepsake"),
    Theme("Reindeer Champs", 1986, "Hallmark"),
    Theme("Collector's Plate", 1987, "Hallmark"),
    Theme("Mary's Angels", 1988, "Hallmark Keepsake"),
    Theme("Piñata Party", 1989, "Hallmark"),
    Theme("Merry Olde Santa", 1990, "Hallmark Keepsake"),
    Theme("Classic American Cars", 1991, "Hallmark Keepsake"),
    Theme("Starship Enterprise", 1991, "Star Trek"),
    Theme("Holiday Barbie", 1993, "Barbie"),
    Theme("The Lion King: Simba & Nala", 1994, "Disney"),
    Theme("Dolls of the World – Señorita", 1996, "Barbie"),
    Theme("Millennium Falcon", 1996, "Star Wars"),
    Theme("Snowflake Café", 2000, "Hallmark Keepsake"),
    Theme("Hogwarts Castle", 2000, "Harry Potter"),
    Theme("Noah's Ark", 2005, "Hallmark"),
    Theme("Bébé's First Noël", 2008, "Hallmark Keepsake"),
    Theme("L'il Polar Express", 2010, "Hallmark"),
    Theme("Elsa & Anna", 2013, "Disney"),
)
VARIANTS = (
    *("", "Blown Glass", "Miniature", "Porcelain", "Magic Light & Sound", "Limited Edition"),
    *("Ornaments Set", "Repaint", "Club Exclusive", "Premiere", "Colorway", "Event Exclusive"),
    *("Complement", "Tree Topper", "Personalized", "Signed"),
)
PRICES = (
    *("4.95", "7.95", "9.95", "12.95", "14.95", "15.95", "17.95", "19.95", "24.95", "28.95"),
    "38.95",
)


class HallmarkGoods(Goods):
    """10270 products over all YEARS."""

    themes = THEMES
    variants = VARIANTS
    prices = PRICES
    featured = {
        2014: (
            ("Felt Snowflake And Mittens Ornaments Set", "15.95"),
            ("Father Christmas African American", "38.95"),
            ("Feliz Navidad", "14.95"),
            ("Father Christmas #11", "28.95"),
        )
    }

    def size(self, year: int) -> int:
        """Return the number of products of *year*."""
        known = {1973: 21, 1974: 19, 1975: 30, 1976: 49}
        return known.get(year) or 58 + 8 * (year - 1977) + (year < 2008)

    def sku(self, year: int, index: int, price: str) -> str:
        """Return a product's number."""
        return f"{price.replace('.', '')}QX{year % 100:02}{index + 1:03}"

    def place(self, sku: str) -> tuple[int, int] | None:
        """Parse year and index from a product's number."""
        found = re.fullmatch(r"\d+QX(\d\d)(\d\d\d)", sku)
        return (full_year(found[1]), int(found[2]) - 1) if found else None

    def path(self, year: int, name: str, sku: str) -> str:
        """Return the path of a product's page."""
        return f"ornaments/{year}/{slug(name)}-{sku.lower()}"


GOODS = HallmarkGoods()


def pages(year: int) -> int:
    """Return the number of pages of *year*."""
    return -(-GOODS.size(year) // PAGE_SIZE)


def index_page(years: Iterable[int] = YEARS) -> bytes:
    """Render the page of year links."""
    links = "\n".join(
        f'<li class="year-item"><a class="year-link" href="{ROOT}/year/{year}">{year}</a></li>'
        for year in years
    )
    return _page(
        "Ornaments by Year",
        "",
        f'<h1>Ornaments by Year</h1>\n<ul class="year-list">\n{links}\n</ul>',
    )


@lru_cache(maxsize=1024)
def year_page(year: int, page: int, step: int) -> bytes:
    """Render page *page*, from 1 to `pages(year)`, of *year* after *step* changes."""
    first = (page - 1) * PAGE_SIZE
    shown = GOODS.window(year, step)[first : first + PAGE_SIZE]
    return _listing(
        f"{year} Hallmark Ornaments",
        f'<li class="breadcrumb-item">{year}</li>',
        [GOODS.product(year, index, step) for index in shown],
        count=f"{first + 1}–{first + len(shown)} of {GOODS.size(year)}",
        pagination=_pagination(year, page),
    )


def _found_page(title: str, products: Sequence[ShopProduct]) -> bytes:
    """Render the page of a product, or of a search result with at most 1 product."""
    if not products:
        return _page(title, "", f"<h1>{escape(title)}</h1>\n<p>No ornaments found.</p>")
    return _listing(title, "", products, count="1–1 of 1", pagination="")


def _listing(
    title: str, breadcrumb: str, products: Sequence[ShopProduct], *, count: str, pagination: str
) -> bytes:
    return _page(
        title,
        breadcrumb,
        f'<h1>{escape(title)}</h1>\n<p class="result-count">{count} ornaments</p>\n'
        f'<div class="product-grid" data-source="products"></div>\n'
        f"<script>\nvar products = {_table(products)};\n</script>\n{pagination}",
    )


def _table(products: Sequence[ShopProduct]) -> str:
    """Render the script variable: a row for each product, in the order of the columns."""
    rows = ",\n".join(orjson.dumps(_row(product)).decode() for product in products)
    columns = orjson.dumps(COLUMNS).decode()
    return f'{{"columns":{columns},"rows":[\n{rows}\n]}}'.replace("</", "<\\/")


def _row(product: ShopProduct) -> list[str | int]:
    price = "—" if product.price is None else f"${product.price:,.2f}"
    if product.sku.endswith("7"):
        price = price.replace("$", "$\N{NO-BREAK SPACE}")
    return [
        product.sku,
        product.name,
        product.brand,
        price,
        "In stock" if product.in_stock else "Sold out",
        product.year,
        f"{PUBLIC}/{product.path}",
        f"{ROOT}/{product.image}",
    ]


def _pagination(year: int, page: int) -> str:
    def link(number: int, text: str, rel: str = "") -> str:
        return f'<a class="page"{rel} href="{ROOT}/year/{year}?page={number}">{text}</a>'

    links = [link(number, str(number)) for number in range(1, pages(year) + 1)]
    if page > 1:
        links.insert(0, link(page - 1, "Previous", ' rel="prev"'))
    if page < pages(year):
        links.append(link(page + 1, "Next", ' rel="next"'))
    return f'<nav class="pagination">{" ".join(links)}</nav>'


def _page(title: str, breadcrumb: str, main: str) -> bytes:
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(title)} | Hallmark Ornaments</title>
<link rel="stylesheet" href="{ROOT}/media/shop.css">
</head>
<body>
<header>
<a class="logo" href="{ROOT}/">Hallmark Ornaments</a>
<nav class="main-nav"><ul>
<li><a href="{ROOT}/">Ornaments by Year</a></li>
<li><a href="{ROOT}/series">Series</a></li>
<li><a href="{ROOT}/new">What&#8217;s New</a></li>
<li><a href="{ROOT}/cart">Cart (0)</a></li>
</ul></nav>
<form class="search" action="{ROOT}/search"><input name="q" placeholder="Name or number"></form>
</header>
<ol class="breadcrumbs"><li class="breadcrumb-item"><a href="{ROOT}/">Home</a></li>{breadcrumb}</ol>
<main>
{main}
</main>
<footer><p>Prices in US dollars. Sold-out ornaments stay listed.</p></footer>
</body>
</html>
""".encode()


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve year links, `year/YEAR?page=N`, `ornaments/...` and `search?q=NUMBER`."""
    match request.parts:
        case [""]:
            return DemoReply(index_page(world.years))
        case ["year", text] if text.isdecimal() and int(text) in world.years:
            number = page_number(request, pages(int(text)))
            return DemoReply(year_page(int(text), number, world.step)) if number else None
        case ["ornaments", _, name]:
            found = GOODS.find(name.rpartition("-")[2].upper(), world)
            if found and found.path == request.path:
                return DemoReply(_found_page(found.name, [found]))
        case ["search"]:
            found = GOODS.find(request.query.get("q", ""), world)
            return DemoReply(_found_page("Search", [found] if found else []))
    return image_reply(request.path)


SOURCE = DemoSource("hallmark", "hallmark_ornaments_com", respond)
