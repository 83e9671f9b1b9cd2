"""Spiders of the ornament shops: complete items, pagination and refused pages."""

import json
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import TextResponse

from catlog_scrapy.base_spiders.products_by_year import ProductPages, ProductsByYear, plain_price
from catlog_scrapy.base_spiders.year_links import YearLinks
from catlog_scrapy.records import Unchanged
from catlog_scrapy.spiders.hallmark_products import HallmarkProducts
from catlog_scrapy.spiders.hallmark_year_links import HallmarkYearLinks
from catlog_scrapy.spiders.hooked_products import HookedProducts
from catlog_scrapy.spiders.hooked_year_links import HookedYearLinks
from catlog_scrapy.spiders.ornament_shop_products import OrnamentShopProducts
from catlog_scrapy.spiders.ornament_shop_year_links import OrnamentShopYearLinks
from tests.unit.test_spiders import PAGES, changed, first_requests, page, validated

SHOP = "https://shop.example"
HALLMARK, HOOKED, GERMAN = (f"{SHOP}/{name}" for name in ("hallmark", "hooked", "ornament_shop"))
YEARS = {
    HallmarkProducts: (HALLMARK, "{}/year/{}"),
    HookedProducts: (HOOKED, "{}/year-{}.html"),
    OrnamentShopProducts: (GERMAN, "{}/jahrgang/{}"),
}
# A product's page of each shop that has some, in the copy and in the shop itself.
PRODUCTS = {
    HookedProducts: (
        f"{HOOKED}/products/2014-norman-rockwell-limited-edition-hoh14-208.html",
        "https://hookedonhallmark.example/products/2014-norman-rockwell-limited-edition-hoh14-208.html",
    ),
    OrnamentShopProducts: (
        f"{GERMAN}/artikel/2010-014",
        "https://ornament-shop.example/artikel/2010-014",
    ),
}


def golden(spider: Any, file: str) -> Any:
    text = (PAGES / spider.name / f"{file}.items.json").read_text(encoding="utf-8")
    return json.loads(text)


def year_of(
    shop: type[ProductsByYear], year: str, **arguments: Any
) -> tuple[ProductsByYear, TextResponse]:
    """Return the spider of a year and the year's saved first page."""
    base_url, template = YEARS[shop]
    spider = shop(base_url=base_url, year=year, **arguments)
    return spider, page(spider, f"{year}.html", template.format(base_url, year))


def product_of(shop: type[ProductPages], file: str = "product") -> tuple[Any, TextResponse, str]:
    """Return the spider, a saved page of a product, and the product's link."""
    url, link = PRODUCTS[shop]
    spider = shop(base_url=YEARS[shop][0])
    return spider, page(spider, f"{file}.html", url), link


def without_view_all(response: TextResponse) -> TextResponse:
    return response.replace(body=response.text.replace("view-all", "compare").encode())


@pytest.mark.parametrize(
    ("shop", "base_url", "template"),
    [
        (HallmarkYearLinks, *YEARS[HallmarkProducts]),
        (HookedYearLinks, *YEARS[HookedProducts]),
        (OrnamentShopYearLinks, *YEARS[OrnamentShopProducts]),
    ],
)
def test_year_links_match_the_golden_result(
    shop: type[YearLinks], base_url: str, template: str
) -> None:
    spider = shop(base_url=base_url)
    assert first_requests(spider) == [f"{base_url}/"]
    response = page(spider, "index.html", f"{base_url}/")
    items = list(spider.parse(response))
    assert validated(spider, items) == golden(spider, "index")
    assert [item["link"] for item in items] == [
        template.format(base_url, year) for year in range(1973, 2021)
    ]
    with pytest.raises(ValueError, match=f"{base_url}/ has no year links: the markup has changed"):
        list(spider.parse(response.replace(body=b"<html></html>")))
    with pytest.raises(ValueError, match=r"\byear\n"):
        validated(spider, list(spider.parse(changed(response, "1973", "early"))))


# The first page to read


@pytest.mark.parametrize("shop", YEARS)
def test_ornament_spider_requests_a_year_a_url_or_a_number(shop: type[ProductsByYear]) -> None:
    base_url, template = YEARS[shop]
    by_year = template.format(base_url, 1999)
    in_the_shop = template.format(shop.site, 1999)
    assert first_requests(shop(base_url=base_url, year="1999")) == [by_year]
    assert first_requests(shop(base_url=base_url, url=by_year)) == [by_year]
    assert first_requests(shop(base_url=base_url, url=in_the_shop)) == [by_year]
    [by_number] = first_requests(shop(base_url=base_url, sku="A&B/7"))
    assert by_number.startswith(f"{base_url}/")
    assert by_number.endswith("A%26B%2F7")
    with pytest.raises(ValueError, match="no page to read; set the argument year, url or sku"):
        first_requests(shop(base_url=base_url))


# Listings


# 1973: one page. 2014: the first of eight.
@pytest.mark.parametrize(("year", "following"), [("1973", []), ("2014", ["?page=2"])])
def test_hallmark_products_are_read_from_a_script(year: str, following: list[str]) -> None:
    spider, response = year_of(HallmarkProducts, year)
    results = list(spider.parse(response))
    items = [one for one in results if isinstance(one, dict)]
    requests = [one for one in results if isinstance(one, Request)]
    assert validated(spider, items) == golden(spider, year)
    assert [request.url for request in requests] == [response.url + query for query in following]
    assert all(request.cb_kwargs == {"shown": 48} for request in requests)


@pytest.mark.parametrize(
    ("shop", "year", "products", "last"),
    [
        (HookedProducts, "1973", 46, f"{HOOKED}/products/1973-betsey-clark-1-hoh73-001.html"),
        (OrnamentShopProducts, "1973", 12, f"{GERMAN}/artikel/1973-001"),
        (OrnamentShopProducts, "2014", 24, f"{GERMAN}/artikel/2014-009"),
    ],
)
def test_ornament_listing_leads_to_the_page_of_each_product(
    shop: type[ProductPages], year: str, products: int, last: str
) -> None:
    spider, response = year_of(shop, year)
    requests = list(spider.parse(response))
    pages = [request for request in requests if request.callback == spider.parse_product]
    assert len(pages) == products
    assert pages[-1].url == last
    assert pages[-1].cb_kwargs == {"link": last.replace(YEARS[shop][0], shop.site)}
    following = [request.url for request in requests[products:]]
    assert following == ([f"{GERMAN}/jahrgang/2014?page=2"] if year == "2014" else [])


def test_ornament_spider_reads_the_view_of_all_instead_of_pages() -> None:
    spider, response = year_of(HookedProducts, "2014")
    [request] = spider.parse(response)
    assert request.url == f"{HOOKED}/year-2014.html?view=all"
    assert request.callback is None
    *products, following = spider.parse(without_view_all(response))
    assert len(products) == 60
    assert (following.url, following.cb_kwargs) == (
        f"{HOOKED}/year-2014.html?page=2",
        {"shown": 60},
    )


@pytest.mark.parametrize("shop", [HookedProducts, OrnamentShopProducts])
def test_fresh_product_is_not_requested(shop: type[ProductPages]) -> None:
    spider, response = year_of(shop, "1973")
    links = [request.cb_kwargs["link"] for request in spider.parse(response)]
    key = [spider.vendor, "A", "name", links[0]]
    spider, response = year_of(shop, "1973", fresh={links[0]: key, "elsewhere": ["B"]})
    unchanged, *requests = spider.parse(response)
    assert unchanged == Unchanged(key)
    assert [request.cb_kwargs["link"] for request in requests] == links[1:]
    spider.sku, spider.year = "A", ""
    assert [request.cb_kwargs["link"] for request in spider.parse(response)] == links


@pytest.mark.parametrize(
    ("shop", "old", "new", "message"),
    [
        (HallmarkProducts, "var products", "let goods", "lists no products: the markup has"),
        (HallmarkProducts, "result-count", "count", "lists no products: the markup has"),
        (HallmarkProducts, 'rel="next"', 'class="forward"', "ends at product 48 of 354, with no"),
        (HallmarkProducts, "1–48 of", "49–96 of", "claims 49 to 96 of 354 after 0"),
        (HallmarkProducts, "1–48 of", "1–47 of", "has 48 products, but claims 1 to 47 of 354"),
        (HallmarkProducts, ",2014,", ",2013,", "a product of 2013 is listed under 2014"),
        (HallmarkProducts, '"columns":["number",', '"columns":[', "zip"),
        (HookedProducts, 'id="items"', 'id="goods"', "lists no products: the markup has changed"),
        (HookedProducts, "Items 1 to", "Items 61 to", "claims 61 to 60 of 209 after 0"),
        (HookedProducts, 'class="next"', 'class="more"', "ends at product 60 of 209, with no"),
        (OrnamentShopProducts, "kachel", "tile", "lists no products: the markup has changed"),
        (OrnamentShopProducts, "anzahl", "zahl", "lists no products: the markup has changed"),
        (OrnamentShopProducts, "weiter", "mehr", "ends at product 24 of 32, with no link"),
        (OrnamentShopProducts, "1 bis 24", "1 bis 25", "has 24 products, but claims 1 to 25 of 32"),
    ],
)
def test_changed_ornament_listing_fails_the_load(
    shop: type[ProductsByYear], old: str, new: str, message: str
) -> None:
    spider, response = year_of(shop, "2014")
    with pytest.raises(ValueError, match=message):
        list(spider.parse(without_view_all(changed(response, old, new))))


def test_ornament_page_out_of_sequence_fails_the_load() -> None:
    spider, response = year_of(OrnamentShopProducts, "2014")
    with pytest.raises(ValueError, match="claims 1 to 24 of 32 after 24"):
        list(spider.parse(response, shown=24))


def test_single_ornament_page_is_read_by_its_url() -> None:
    spider, response = year_of(OrnamentShopProducts, "2014")
    spider.year = ""
    later = changed(response, "1 bis 24 von 32", "25 bis 48 von 48")
    assert len(list(spider.parse(changed(later, "weiter", "zurück")))) == 24


def test_unknown_ornament_number_fails_the_load() -> None:
    spider = HookedProducts(base_url=HOOKED, sku="HOH99-999")
    response = TextResponse(f"{HOOKED}/search.html", body=b"<p>No items</p>", encoding="utf-8")
    with pytest.raises(
        ValueError, match="the shop does not sell HOH99-999, or the markup has changed"
    ):
        list(spider.parse(response))


# Products


@pytest.mark.parametrize(
    ("shop", "file"),
    [
        *((HookedProducts, file) for file in ("product", "sold-out")),
        *((OrnamentShopProducts, file) for file in ("product", "sold-out", "hebrew", "emoji")),
    ],
)
def test_ornament_product_page_matches_the_golden_result(
    shop: type[ProductPages], file: str
) -> None:
    [expected] = golden(shop, file)
    spider = shop(base_url=YEARS[shop][0])
    link = expected["link"]
    response = page(spider, f"{file}.html", link.replace(shop.site, spider.base_url))
    items = list(spider.parse_product(response, link))
    assert validated(spider, items) == [expected]
    assert list(spider.parse(response)) == items, "the same, if asked for by its URL"


@pytest.mark.parametrize("shop", PRODUCTS)
@pytest.mark.parametrize(
    ("field", "english", "german"),
    [
        ("sku", "Item #:", "Artikelnummer"),
        ("price", "Price:", "Preis"),
        ("brand", "Brand:", "Hersteller"),
        ("availability", "Availability:", "Lieferbarkeit"),
        ("release_year", "Year:", "Jahrgang<"),
    ],
)
def test_ornament_product_without_a_label_does_not_validate(
    shop: type[ProductPages], field: str, english: str, german: str
) -> None:
    spider, response, link = product_of(shop)
    label = english if shop is HookedProducts else german
    unlabelled = changed(response, label, label.replace(label[0], "?", 1))
    with pytest.raises(ValueError, match=rf"\b{field}\n"):
        validated(spider, list(spider.parse_product(unlabelled, link)))


@pytest.mark.parametrize(
    ("shop", "old", "new", "field"),
    [
        (HookedProducts, "$ 1,234.50", "1.234,50 €", "price"),
        (HookedProducts, "In Stock", "Soon", "availability"),
        (OrnamentShopProducts, "1.234,50", "1,234.50", "price"),
        (OrnamentShopProducts, "€", "CHF", "price"),
        (OrnamentShopProducts, "auf Lager", "bald", "availability"),
    ],
)
def test_changed_value_of_an_ornament_does_not_validate(
    shop: type[ProductPages], old: str, new: str, field: str
) -> None:
    spider, response, link = product_of(shop)
    with pytest.raises(ValueError, match=rf"\b{field}\n"):
        validated(spider, list(spider.parse_product(changed(response, old, new), link)))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"number"', '"id"', "sku"),
        ('"title"', '"name"', "name"),
        ('"price"', '"amount"', "price"),
        ("$", "CHF ", "price"),
        ('"maker"', '"brand"', "brand"),
        ('"stock"', '"state"', "availability"),
        ("In stock", "Available soon", "availability"),
        ('"year",', '"season",', "release_year"),
        ('"url"', '"href"', "link"),
    ],
)
def test_changed_hallmark_table_does_not_validate(old: str, new: str, field: str) -> None:
    spider, response = year_of(HallmarkProducts, "1973")
    with pytest.raises(ValueError, match=rf"\b{field}\n"):
        validated(spider, list(spider.parse(changed(response, old, new))))


@pytest.mark.parametrize("shop", PRODUCTS)
def test_ornament_product_that_leads_elsewhere_fails_the_load(shop: type[ProductPages]) -> None:
    spider, response, link = product_of(shop)
    with pytest.raises(ValueError, match=f"other leads to {response.url}: the product has moved"):
        list(spider.parse_product(response, f"{link}/other"))
    with pytest.raises(ValueError, match="is not a product's page: the markup has changed"):
        list(spider.parse_product(changed(response, "h1", "h2"), link))
    spider.year = "1973"
    with pytest.raises(ValueError, match="is listed under 1973"):
        list(spider.parse_product(response, link))


@pytest.mark.parametrize(
    ("text", "currency", "price"),
    [
        ("$28.95", "USD", "28.95"),
        ("$\N{NO-BREAK SPACE}15.95", "USD", "15.95"),
        ("$1,234.50", "USD", "1234.50"),
        ("$1234567.50", "USD", "1234567.50"),
        (" $ 4.95 ", "USD", "4.95"),
        ("1.234,50\N{NO-BREAK SPACE}€", "EUR", "1234.50"),
        ("1.234.567,50\N{NARROW NO-BREAK SPACE}€", "EUR", "1234567.50"),
        ("0,95 €", "EUR", "0.95"),
        ("—", "USD", None),
        (" — ", "EUR", None),
    ],
)
def test_price_text_becomes_a_number(text: str, currency: str, price: str | None) -> None:
    assert plain_price(text, currency) == price


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("", "USD"),
        ("ask us", "USD"),
        ("28.95", "USD"),
        ("$1.234,50", "USD"),
        ("$12,34.50", "USD"),
        ("$1,234", "USD"),
        ("1,234.50 €", "EUR"),
        ("$1.234,50", "EUR"),
        ("1.234 €", "EUR"),
        ("ab 4,95 €", "EUR"),
    ],
)
def test_text_without_a_price_is_unchanged(text: str, currency: str) -> None:
    assert plain_price(text, currency) == text
