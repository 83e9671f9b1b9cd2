"""An ornament shop: a page of 48 year links, and for each year its products, 48 a page.

Known of the original: the years 1973 to 2020, 10270 products in all, 21, 19, 30 and 49 of them in
the first four years, the names and prices of FEATURED, that years are paginated. Invented: the
markup, all other products and counts, every change. The products of a year are an endless series,
of which the shop shows a window, the newest first; each change lowers or restores some prices, and
in DEMO_YEARS moves the window on by one.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from html import escape
from typing import NamedTuple

from catlog_scrapy.demo.source import YEARS, Answer, Request, Source, World

ROOT = "/hallmark"
# What a short demonstration reads: the years whose size is known, and the one of FEATURED.
DEMO_YEARS = (1973, 1974, 1975, 1976, 2014)
PAGE_SIZE = 48
# Products carry the shop's public address: with the local one, their key would hold a port.
PUBLIC = "https://hallmark-ornaments.example"

FEATURED = {
    2014: (
        ("Felt Snowflake And Mittens Ornaments Set", "15.95"),
        ("Father Christmas African American", "38.95"),
        ("Feliz Navidad", "14.95"),
        ("Father Christmas #11", "28.95"),
    )
}
# Name, first year, brand. Some have a number in the series of their years.
THEMES = (
    ("Betsey Clark", 1973, "Hallmark"),
    ("Santa's Workshop", 1973, "Hallmark Keepsake"),
    ("Manger Scene", 1973, "Hallmark"),
    ("Elves & Toys", 1973, "Hallmark"),
    ("Christmas Is Love", 1973, "Hallmark"),
    ("Little Drummer Boy", 1973, "Hallmark Keepsake"),
    ("Joyeux Noël", 1974, "Hallmark"),
    ("Norman Rockwell", 1974, "Hallmark"),
    ("Raggedy Ann & Andy", 1975, "Hallmark"),
    ("Baby's First Christmas", 1976, "Hallmark Keepsake"),
    ("Crèche", 1976, "Hallmark"),
    ("Nostalgia Locomotive", 1976, "Hallmark Keepsake"),
    ("Snoopy & Woodstock", 1977, "Peanuts"),
    ("Grandmother's House", 1977, "Hallmark"),
    ("Carrousel Series", 1978, "Hallmark Keepsake"),
    ("Here Comes Santa", 1979, "Hallmark Keepsake"),
    ('The "Bellringer" Bear', 1979, "Hallmark Keepsake"),
    ("Frosty Friends", 1980, "Hallmark Keepsake"),
    ("Rooftop Deliveries", 1980, "Hallmark"),
    ("Tin Locomotive", 1982, "Hallmark Keepsake"),
    ("Nostalgic Houses & Shops", 1984, "Hallmark Keepsake"),
    ("Twelve Days of Christmas", 1984, "Hallmark"),
    ("Mr. & Mrs. Claus", 1986, "Hallmark Keepsake"),
    ("Reindeer Champs", 1986, "Hallmark"),
    ("Collector's Plate", 1987, "Hallmark"),
    ("Mary's Angels", 1988, "Hallmark Keepsake"),
    ("Piñata Party", 1989, "Hallmark"),
    ("Merry Olde Santa", 1990, "Hallmark Keepsake"),
    ("Classic American Cars", 1991, "Hallmark Keepsake"),
    ("Starship Enterprise", 1991, "Star Trek"),
    ("Holiday Barbie", 1993, "Barbie"),
    ("The Lion King: Simba & Nala", 1994, "Disney"),
    ("Dolls of the World – Señorita", 1996, "Barbie"),
    ("Millennium Falcon", 1996, "Star Wars"),
    ("Snowflake Café", 2000, "Hallmark Keepsake"),
    ("Hogwarts Castle", 2000, "Harry Potter"),
    ("Noah's Ark", 2005, "Hallmark"),
    ("Bébé's First Noël", 2008, "Hallmark Keepsake"),
    ("L'il Polar Express", 2010, "Hallmark"),
    ("Elsa & Anna", 2013, "Disney"),
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
RARE_PRICES = ("1234.50", "1095.00")
SALE = Decimal("2.00")


class Product(NamedTuple):
    """What the shop shows of a product. No price: no longer to be had, nor ever again."""

    sku: str
    name: str
    brand: str
    price: Decimal | None
    in_stock: bool
    link: str


def size(year: int) -> int:
    """How many products the shop has of *year*: 10270 over all YEARS."""
    known = {1973: 21, 1974: 19, 1975: 30, 1976: 49}
    return known.get(year) or 58 + 8 * (year - 1977) + (year < 2008)


def products(year: int, step: int = 0) -> Iterator[Product]:
    """The products of *year* after *step* changes, in the order of the pages."""
    return (_product(year, index, step) for index in _window(year, step))


def _window(year: int, step: int) -> range:
    """The indexes of the products shown, the newest first."""
    oldest = step if year in DEMO_YEARS else 0
    return range(oldest, oldest + size(year))[::-1]


def pages(year: int) -> int:
    """How many pages *year* has."""
    return -(-size(year) // PAGE_SIZE)


def _product(year: int, index: int, step: int) -> Product:
    themes = [theme for theme in THEMES if theme[1] <= year]
    theme, first_year, brand = themes[index % len(themes)]
    variant = VARIANTS[index // len(themes) % len(VARIANTS)]
    name = f"{theme} {variant or f'#{year - first_year + 1}'}"
    price = PRICES[(index * 7 + year) % len(PRICES)]
    if index % 97 == 13:
        price = RARE_PRICES[year % len(RARE_PRICES)]
    in_stock = (index * 7 + year) % 12 != 0

    featured = FEATURED.get(year, ())
    place = index - size(year) + len(featured)
    if 0 <= place < len(featured):
        (name, price), brand, in_stock = featured[place], "Hallmark Keepsake", True

    sku = f"{price.replace('.', '')}QX{year % 100:02}{index + 1:03}"
    # Each change touches every eighth product; the smallest year has 19.
    on_sale = (step + index % 8) // 8 % 2 == 1
    return Product(
        sku=sku,
        name=f"{year} {name}",
        brand=brand,
        price=Decimal(price) - SALE * on_sale if in_stock or index % 2 else None,
        in_stock=in_stock,
        link=f"{PUBLIC}/ornaments/{year}/{_slug(name)}-{sku.lower()}",
    )


def _slug(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")


def index_page(years: Iterable[int] = YEARS) -> bytes:
    """The page of year links."""
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
    """Page *page*, from 1 to `pages(year)`, of the products of *year* after *step* changes."""
    first = (page - 1) * PAGE_SIZE
    shown = _window(year, step)[first : first + PAGE_SIZE]
    cards = "\n".join(_card(_product(year, index, step)) for index in shown)
    return _page(
        f"{year} Hallmark Ornaments",
        f'<li class="breadcrumb-item">{year}</li>',
        f"<h1>{year} Hallmark Ornaments</h1>\n"
        f'<p class="result-count">{first + 1}–{first + len(shown)} of {size(year)} ornaments</p>\n'
        f'<ul class="product-grid">\n{cards}\n</ul>\n{_pagination(year, page)}',
    )


def _card(product: Product) -> str:
    stock = "In stock" if product.in_stock else "Sold out"
    price = "—" if product.price is None else f"${product.price:,.2f}"
    if product.sku.endswith("7"):
        price = price.replace("$", "$&nbsp;")
    return f"""\
<li class="product-card" data-sku="{product.sku}">
  <a class="product-link" href="{product.link}">
    <img class="product-image" src="/hallmark/media/{product.sku}.jpg" alt="" loading="lazy">
    <h2 class="product-name">{escape(product.name)}</h2>
  </a>
  <p class="product-brand">{escape(product.brand)}</p>
  <p class="product-price">{price}</p>
  <p class="product-stock">{stock}</p>
</li>"""


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
<title>{title} | Hallmark Ornaments</title>
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


def answer(request: Request, world: World) -> Answer | None:
    """The page of year links, and `year/YEAR?page=N`."""
    match request.parts:
        case [""]:
            return Answer(index_page(world.years))
        case ["year", text] if text.isdecimal() and int(text) in world.years:
            number = request.query.get("page", "1")
            if number.isdecimal() and 1 <= int(number) <= pages(int(text)):
                return Answer(year_page(int(text), int(number), world.step))
    return None


SOURCE = Source("hallmark", "hallmark_ornaments_com", answer)
