"""The rows that all benchmarks load: what an ornament shop sells, as a spider would scrape it."""

from collections.abc import Iterator
from typing import Any

BATCH = 10_000

VENDORS = ("hallmark_ornaments_com", "hookedonhallmark_com", "ornament_shop_com")
THINGS = (
    "Felt Snowflake And Mittens Ornaments Set",
    "Father Christmas African American",
    "Feliz Navidad",
    "Father Christmas",
    "Nostalgic Houses and Shops: Corner Café",
    "Frosty Friends",
    "Baby's First Christmas",
)
BRANDS = ("Hallmark", "Hallmark Keepsake", "Kurt Adler")
YEARS = range(1973, 2021)


def product(number: int) -> dict[str, Any]:
    """The product with this number: always the same one, and no other has its key."""
    year = YEARS[number % len(YEARS)]
    thing = THINGS[number % len(THINGS)]
    vendor = VENDORS[number % len(VENDORS)]
    return {
        "vendor": vendor,
        "sku": f"{year}QX{number:07d}",
        "name": f"{year} {thing} #{number % 40 + 1}",
        "price": f"{number % 90 + 5}.95",
        "currency": "USD",
        "brand": BRANDS[number % len(BRANDS)],
        "availability": "available" if number % 4 else "unavailable",
        "release_year": year,
        "link": f"https://{vendor.replace('_', '-')}.example/products/{year}-{number:07d}.html",
    }


def products(count: int) -> Iterator[dict[str, Any]]:
    """The first *count* products, one by one."""
    return map(product, range(count))


def pages(count: int) -> list[list[dict[str, Any]]]:
    """The first *count* products in pages of 10 000, all in memory."""
    return [
        [product(number) for number in range(first, min(first + BATCH, count))]
        for first in range(0, count, BATCH)
    ]
