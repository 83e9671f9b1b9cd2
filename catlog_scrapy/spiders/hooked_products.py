"""Products of a year in the shop Hooked on Hallmark."""

from scrapy.http import Response

from catlog_scrapy.base_spiders.products_by_year import ProductPages


class HookedProducts(ProductPages):
    """Product pages. A year's page links to its first 60 products, and to a view of all products.

    A product's page has labels in bold, each followed by its value.
    """

    name = "hooked_products"
    vendor = "hookedonhallmark_com"
    site = "https://hookedonhallmark.example"
    year_path = "year-{}.html"
    sku_path = "search.html?item={}"
    count = "p.count::text"
    next_page = "a.next::attr(href)"
    view_all = "a.view-all::attr(href)"
    links = "table#items a.item::attr(href)"
    title = "#product h1::text"
    picture = "#product img::attr(src)"
    stock = {"In Stock": "available", "Out of Stock": "unavailable"}
    labels = {
        "sku": "Item #:",
        "price": "Price:",
        "brand": "Brand:",
        "availability": "Availability:",
        "release_year": "Year:",
    }

    def facts(self, response: Response) -> dict[str, str | None]:
        """Return the values by label."""
        return {
            label.css("::text").get(""): label.xpath(
                "normalize-space(following-sibling::text())"
            ).get()
            for label in response.css("#product .details b")
        }
