"""Ornament shop with prices in euro: year links, product links, and a page for each product.

Known of the original: 48 years from 1973 with pages of products, and a page for each product.
Invented: all 1128 products, the German language, and the markup: a definition list, and prices such
as 1.234,50 € with a decimal comma and a no-break space.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from html import escape

from catlog_scrapy.demo.ornaments import Goods, ShopProduct, Theme, image_reply, page_number
from catlog_scrapy.demo.source import YEARS, DemoReply, DemoRequest, DemoSource, World

ROOT = "/ornament_shop"
PAGE_SIZE = 24
# Swaps the separators of thousands and decimals.
SWAP = str.maketrans(",.", ".,")


class OrnamentShopGoods(Goods):
    """1128 products over all YEARS."""

    themes = (
        Theme("Rauschgoldengel", 1973, "Nürnberger Christkind"),
        Theme("Nussknacker", 1973, "Erzgebirge & Söhne"),
        Theme("Gurke „Essig“", 1973, "Lauscha Glas"),
        Theme("Weihnachtspyramide", 1973, "Erzgebirge & Söhne"),
        Theme("Noël à Strasbourg", 1978, "Maison d'Alsace"),
        Theme("Снегурочка", 1984, "Ёлочка"),
        Theme("Menora מְנוֹרָה", 1988, "Jerusalem Art"),
        Theme("Fröhliche Weihnacht 🎄", 2009, "Lauscha Glas"),
    )
    variants = ("", "mundgeblasen", "Miniatur", "Holz < 10 cm", "mit Licht & Ton", "limitiert")
    prices = ("4.95", "7.90", "9.95", "12.50", "19.95", "24.90", "49.00", "129.00")

    def size(self, year: int) -> int:
        """Return the number of products of *year*."""
        return 12 + (year - YEARS.start) // 2

    def sku(self, year: int, index: int, price: str) -> str:
        """Return a product's number."""
        return f"{year}-{index + 1:03}"

    def place(self, sku: str) -> tuple[int, int] | None:
        """Parse year and index from a product's number."""
        found = re.fullmatch(r"(\d{4})-(\d{3})", sku)
        return (int(found[1]), int(found[2]) - 1) if found else None

    def path(self, year: int, name: str, sku: str) -> str:
        """Return the path of a product's page."""
        return f"artikel/{sku}"


GOODS = OrnamentShopGoods()


def pages(year: int) -> int:
    """Return the number of pages of *year*."""
    return -(-GOODS.size(year) // PAGE_SIZE)


def index_page(years: Collection[int]) -> bytes:
    """Render the page of year links."""
    links = "\n".join(
        f'<option value="{ROOT}/jahrgang/{year}">Jahrgang {year}</option>' for year in years
    )
    return _page("Jahrgänge", f'<select class="jahrgaenge">\n{links}\n</select>')


@lru_cache(maxsize=1024)
def year_page(year: int, page: int, step: int) -> bytes:
    """Render page *page*, from 1 to `pages(year)`, of *year* after *step* changes."""
    first = (page - 1) * PAGE_SIZE
    shown = GOODS.window(year, step)[first : first + PAGE_SIZE]
    items = "\n".join(_tile(GOODS.product(year, index, step)) for index in shown)
    count = f"Artikel {first + 1} bis {first + len(shown)} von {GOODS.size(year)}"
    more = f'<a class="weiter" href="?page={page + 1}">weiter</a>' if page < pages(year) else ""
    return _page(
        f"Jahrgang {year}",
        f'<h1>Jahrgang {year}</h1>\n<p class="anzahl">{count}</p>\n{items}\n{more}',
    )


def product_page(product: ShopProduct) -> bytes:
    """Render a product's page."""
    price = f"{product.price or 0:,.2f}".translate(SWAP)
    return _page(
        product.name,
        f"""\
<article class="artikel">
<h1>{escape(product.name)}</h1>
<img src="{ROOT}/{product.image}" alt="">
<dl>
<dt>Artikelnummer</dt><dd>{product.sku}</dd>
<dt>Hersteller</dt><dd>{escape(product.brand)}</dd>
<dt>Jahrgang</dt><dd>{product.year}</dd>
<dt>Preis</dt><dd>{"—" if product.price is None else f"{price}&nbsp;€"}</dd>
<dt>Lieferbarkeit</dt><dd>{"auf Lager" if product.in_stock else "ausverkauft"}</dd>
</dl>
</article>""",
    )


def _tile(product: ShopProduct) -> str:
    return (
        f'<div class="kachel"><img src="{ROOT}/{product.image}" alt="">'
        f'<a href="{ROOT}/{product.path}">{escape(product.name)}</a></div>'
    )


def _page(title: str, main: str) -> bytes:
    return f"""\
<!DOCTYPE html>
<html lang="de">
<head><meta charset="utf-8"><title>{escape(title)} – Ornament-Shop</title></head>
<body>
<nav><a href="{ROOT}/">Jahrgänge</a> <a href="{ROOT}/warenkorb">Warenkorb</a></nav>
{main}
<footer>Alle Preise inkl. MwSt.</footer>
</body>
</html>
""".encode()


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve year links, `jahrgang/YEAR?page=N` and `artikel/NUMBER`."""
    match request.parts:
        case [""]:
            return DemoReply(index_page(world.years))
        case ["jahrgang", text] if text.isdecimal() and int(text) in world.years:
            number = page_number(request, pages(int(text)))
            return DemoReply(year_page(int(text), number, world.step)) if number else None
        case ["artikel", sku]:
            product = GOODS.find(sku, world)
            return DemoReply(product_page(product)) if product else None
    return image_reply(request.path)


SOURCE = DemoSource("ornament_shop", "ornament_shop_com", respond)
