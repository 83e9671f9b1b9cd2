"""Rows of the benchmarks: products of an ornament shop, as a spider would scrape them."""

from collections.abc import Iterator
from typing import Any

BATCH = 10_000

# Fields of a product's key.
KEY = ("vendor", "sku", "name", "link")

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


# Of so many products one has another price in a source that has changed.
CHANGED_ONE_IN = 100


def product(number: int, changed: str = "") -> dict[str, Any]:
    """Return the product with this number: always the same product, with a unique key.

    *changed* is the cents of the price of one in CHANGED_ONE_IN products.
    """
    year = YEARS[number % len(YEARS)]
    thing = THINGS[number % len(THINGS)]
    vendor = VENDORS[number % len(VENDORS)]
    cents = changed if changed and number % CHANGED_ONE_IN == 0 else "95"
    return {
        "vendor": vendor,
        "sku": f"{year}QX{number:07d}",
        "name": f"{year} {thing} #{number % 40 + 1}",
        "price": f"{number % 90 + 5}.{cents}",
        "currency": "USD",
        "brand": BRANDS[number % len(BRANDS)],
        "availability": "available" if number % 4 else "unavailable",
        "release_year": year,
        "link": f"https://{vendor.replace('_', '-')}.example/products/{year}-{number:07d}.html",
    }


def products(count: int, changed: str = "") -> Iterator[dict[str, Any]]:
    """Generate the first *count* products."""
    return (product(number, changed) for number in range(count))


def pages(count: int, changed: str = "") -> list[list[dict[str, Any]]]:
    """Return the first *count* products in pages of 10 000, all in memory."""
    return [
        [product(number, changed) for number in range(first, min(first + BATCH, count))]
        for first in range(0, count, BATCH)
    ]
