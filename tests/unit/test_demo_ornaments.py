"""Ornament shops of the demo: the owners' figures, complete pages, changes."""

import re
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from catlog_scrapy.demo import hallmark, hooked, ornament_shop
from catlog_scrapy.demo.ornaments import DEMO_YEARS, ShopProduct
from catlog_scrapy.demo.source import YEARS, DemoRequest, DemoSource, World

SHOPS = (hallmark, hooked, ornament_shop)
SIZES = {hallmark: 10270, hooked: 6689, ornament_shop: 1128}


def body(source: DemoSource, path: str, world: World | None = None, **query: str) -> str | None:
    """Return the shop's page at *path*, or None."""
    reply = source.respond(DemoRequest("GET", path, query), world or World())
    return reply.body.decode() if reply else None


def shop_named(shop: Any) -> str:
    return str(shop.SOURCE.name)


@pytest.fixture(params=SHOPS, ids=shop_named)
def shop(request: pytest.FixtureRequest) -> Any:
    """Return the module of each shop."""
    return request.param


def test_demo_shop_has_its_owners_number_of_products(shop: Any) -> None:
    assert (min(YEARS), max(YEARS), len(YEARS)) == (1973, 2020, 48)
    products = [product for year in YEARS for product in shop.GOODS.products(year)]
    assert len(products) == SIZES[shop]
    assert len({product.sku for product in products}) == len(products)
    assert len({product.path for product in products}) == len(products)
    assert all(product.name.startswith(f"{product.year} ") for product in products)


def test_hallmark_has_its_owners_numbers_for_the_first_years() -> None:
    assert [hallmark.GOODS.size(year) for year in range(1973, 1977)] == [21, 19, 30, 49]


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("2014 Felt Snowflake And Mittens Ornaments Set", "15.95"),
        ("2014 Father Christmas African American", "38.95"),
        ("2014 Feliz Navidad", "14.95"),
        ("2014 Father Christmas #11", "28.95"),
    ],
)
def test_hallmark_has_its_owners_products(name: str, price: str) -> None:
    found = [product for product in hallmark.GOODS.products(2014) if product.name == name]
    assert [(product.price, product.in_stock) for product in found] == [(Decimal(price), True)]


def test_demo_shop_has_special_letters_prices_and_sold_out_products() -> None:
    products = [product for year in YEARS for product in hallmark.GOODS.products(year)]
    for letter in "'&\"éñ–":
        assert any(letter in product.name for product in products), letter
    stock = Counter((product.in_stock, product.price is None) for product in products)
    assert stock == {(True, False): 9414, (False, False): 422, (False, True): 434}
    shown = hallmark.year_page(1973, 1, 0).decode()
    for text in ("$1,095.00", "$\N{NO-BREAK SPACE}", "Sold out", "Santa's", "Elves & Toys"):
        assert text in shown, text
    foreign = [product for year in YEARS for product in ornament_shop.GOODS.products(year)]
    for letter in "🎄מЁü„<":
        assert any(letter in product.name + product.brand for product in foreign), letter
    shown = "".join(
        body(ornament_shop.SOURCE, product.path) or "" for product in foreign if product.price
    )
    for text in ("1.234,50&nbsp;€", "auf Lager", "ausverkauft", "Holz &lt; 10 cm"):
        assert text in shown, text


def test_hallmark_lists_all_products_as_data() -> None:
    rows = [
        row
        for year in YEARS
        for page in range(1, hallmark.pages(year) + 1)
        for row in re.findall(
            r'^\["(\w+)"', hallmark.year_page(year, page, 0).decode(), re.MULTILINE
        )
    ]
    assert len(rows) == len(set(rows)) == 10270


@pytest.mark.parametrize("shop", [hooked, ornament_shop], ids=shop_named)
def test_year_pages_link_to_all_products(shop: Any) -> None:
    paths = re.compile(rf'href="{shop.ROOT}/((?:products|artikel)/[^"]+)"')
    links = {
        path
        for year in YEARS
        for page in range(1, shop.pages(year) + 1)
        for path in paths.findall(shop.year_page(year, page, 0).decode())
    }
    assert links == {product.path for year in YEARS for product in shop.GOODS.products(year)}
    assert all(body(shop.SOURCE, path) for path in links)


def test_demo_view_of_all_has_the_links_of_all_pages() -> None:
    everything = body(hooked.SOURCE, "year-2014.html", view="all") or ""
    assert everything.count('class="item"') == 209
    assert "Items 1 to 209 of 209" in everything
    assert "view-all" not in everything


def test_demo_shop_finds_a_product_by_its_number() -> None:
    assert "1–1 of 1 ornaments" in (body(hallmark.SOURCE, "search", q="795QX73021") or "")
    assert "1 to 1 of 1" in (body(hooked.SOURCE, "search.html", item="HOH14-208") or "")
    assert "2010-014" in (body(ornament_shop.SOURCE, "artikel/2010-014") or "")
    assert "No ornaments found" in (body(hallmark.SOURCE, "search", q="796QX73021") or "")
    assert "No items" in (body(hooked.SOURCE, "search.html") or "")


def test_hallmark_product_has_a_page() -> None:
    product = next(hallmark.GOODS.products(1973))
    assert product.sku in (body(hallmark.SOURCE, product.path) or "")


@pytest.mark.parametrize(
    ("shop", "path"),
    [
        (hallmark, "ornaments/1973/other-795qx73021"),
        (hooked, "products/1973-other-hoh73-001.html"),
        (hooked, "year-1972.html"),
        (hooked, "cart.html"),
        (ornament_shop, "artikel/1973-013"),
        (ornament_shop, "artikel/1973-000"),
        (ornament_shop, "artikel/new"),
        (ornament_shop, "jahrgang/2021"),
    ],
)
def test_demo_shop_has_no_page_for_unknown_paths(shop: Any, path: str) -> None:
    assert body(shop.SOURCE, path) is None


def test_demo_shop_can_be_limited_to_some_years(shop: Any) -> None:
    world = World(years=(1973, 2014))
    assert (
        len(re.findall(r"\b(19|20)\d\d\b(?=( Ornaments)?<)", shop.index_page(world.years).decode()))
        == 2
    )
    inside, outside = (next(shop.GOODS.products(year)) for year in (2014, 1974))
    assert body(shop.SOURCE, inside.path, world)
    assert body(shop.SOURCE, outside.path) is not None
    assert body(shop.SOURCE, outside.path, world) is None


@pytest.mark.parametrize("step", (1, 2, 8, 9, 16, 17))
def test_change_of_a_demo_shop(shop: Any, step: int) -> None:
    for year in YEARS:
        before, after = (
            {product.sku: product.price for product in shop.GOODS.products(year, when)}
            for when in (step - 1, step)
        )
        moved = 1 if year in DEMO_YEARS else 0
        assert len(before.keys() - after.keys()) == moved, year
        assert len(after.keys() - before.keys()) == moved, year
        kept = before.keys() & after.keys()
        changed = [sku for sku in kept if before[sku] != after[sku]]
        assert len(changed) < len(kept) / 3, year
        # A change may fall on products without a price, where there are few.
        assert changed or len(kept) < 19, year


def test_removed_product_has_no_page(shop: Any) -> None:
    def oldest(world: World) -> ShopProduct:
        *_, last = shop.GOODS.products(1975, world.step)
        return last

    gone = oldest(World())
    assert body(shop.SOURCE, gone.path, World(step=1)) is None
    assert body(shop.SOURCE, oldest(World(step=1)).path, World(step=1))


def test_demo_shops_are_the_same_in_every_process() -> None:
    """Hashes of strings differ between processes, so pages must not depend on them."""
    program = (
        "import hashlib\n"
        "from catlog_scrapy.demo import hallmark, hooked, ornament_shop\n"
        "pages = [shop.year_page(y, 1, 3) for shop in (hallmark, hooked, ornament_shop)"
        " for y in range(1973, 2021)]\n"
        "print(hashlib.sha256(b''.join(pages)).hexdigest(), end='')"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) == 64
