"""The products of one year in the Hallmark ornament shop."""

import json
from collections.abc import Iterator
from typing import Any

from scrapy.http import Response

from catlog_scrapy.base_spiders.products_by_year import ProductsByYear


class HallmarkProducts(ProductsByYear):
    """A year's pages have 48 products each, as a table of data in a script variable.

    What is sold out stays listed, sometimes with a dash for its price.
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
        table = response.css("script::text").re_first(r"(?s)var products = (\{.*?\});\n")
        data = json.loads(table or '{"columns": [], "rows": []}')
        for row in data["rows"]:
            yield self.item(response, dict(zip(data["columns"], row, strict=True)))
