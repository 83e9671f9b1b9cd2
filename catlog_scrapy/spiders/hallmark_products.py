"""Products of a year in the Hallmark ornament shop."""

import json
from collections.abc import Iterator
from typing import Any

from scrapy.http import Response

from catlog_scrapy.base_spiders.products_by_year import ProductsByYear


class HallmarkProducts(ProductsByYear):
    """Products in pages of 48 for each year, as a table in a script variable.

    Sold-out products stay listed, some with a dash as the price.
    """

    name = "hallmark_products"
    vendor = "hallmark_ornaments_com"
    site = "https://hallmark-ornaments.example"
    year_path = "year/{}"
    sku_path = "search?q={}"
    count = ".result-count::text"
    next_page = "a[rel=next]::attr(href)"
    stock = {"In stock": "available", "Sold out": "unavailable"}
    labels = {
        "sku": "number",
        "name": "title",
        "price": "price",
        "brand": "maker",
        "availability": "stock",
        "release_year": "year",
        "link": "url",
        "image_url": "image",
    }

    def entries(self, response: Response) -> Iterator[dict[str, Any]]:
        """Yield the item of each row of the table."""
        table = response.css("script::text").re_first(r"(?s)var products = (\{.*?\});\n")
        data = json.loads(table or '{"columns": [], "rows": []}')
        for row in data["rows"]:
            yield self.item(response, dict(zip(data["columns"], row, strict=True)))
