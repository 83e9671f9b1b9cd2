"""Products of a year in the German ornament shop."""

from scrapy.http import Response

from catlog_scrapy.base_spiders.products_by_year import ProductPages


class OrnamentShopProducts(ProductPages):
    """Product pages. A year's pages link to 24 products each. A product has a definition list.

    Prices are in euro, such as 1.234,50 €.
    """

    name = "ornament_shop_products"
    vendor = "ornament_shop_com"
    site = "https://ornament-shop.example"
    currency = "EUR"
    year_path = "jahrgang/{}"
    sku_path = "artikel/{}"
    count = ".anzahl::text"
    next_page = "a.weiter::attr(href)"
    links = ".kachel a::attr(href)"
    title = "article.artikel h1::text"
    picture = "article.artikel img::attr(src)"
    stock = {"auf Lager": "available", "ausverkauft": "unavailable"}
    labels = {
        "sku": "Artikelnummer",
        "price": "Preis",
        "brand": "Hersteller",
        "availability": "Lieferbarkeit",
        "release_year": "Jahrgang",
    }

    def facts(self, response: Response) -> dict[str, str | None]:
        """Return the values by label."""
        return {
            term.css("::text").get(""): term.xpath("following-sibling::dd[1]/text()").get()
            for term in response.css("article.artikel dt")
        }
