"""New products of Samokat, a grocery delivery."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from catlog_scrapy.base_spiders.browser_responses import BrowserResponses
from catlog_scrapy.items.groceries import Showcase, ShowcaseProduct


class SkLoadNew(BrowserResponses):
    """New products. The category link «Что нового» makes the page request one showcase.

    A response has 48 products: {showcase {id, name}, page, pages, total, products [{id, name,
    specification, prices {current, old}, badges [..], inStock, image}]}. Prices are in kopecks.
    Responses with `list` in their URL hold showcases, not products.
    """

    name = "sk_load_new"
    record = (Showcase, ShowcaseProduct)
    clicks = (("CategoryLink_root", "Что нового"),)
    wanted = "/v2/showcases"
    unwanted = "list"

    def items(self, documents: list[dict[str, Any]]) -> Iterator[Any]:
        """Yield the showcase pages and products. Raises ValueError for missing products."""
        shown = sum(len(document["products"]) for document in documents)
        total = documents[0]["total"]
        if shown != total:
            raise ValueError(f"{shown} of {total} products were shown: the markup has changed.")
        for document in documents:
            showcase = document["showcase"]
            yield Showcase.draft(
                id=showcase.get("id"), page=document.get("page"), document=document
            )
            for product in document["products"]:
                prices = product.get("prices") or {}
                yield ShowcaseProduct.draft(
                    id=product.get("id"),
                    showcase=showcase.get("name"),
                    name=product.get("name"),
                    specification=product.get("specification"),
                    price=roubles(prices.get("current")),
                    old_price=roubles(prices.get("old")),
                    badges=product.get("badges"),
                    in_stock=product.get("inStock"),
                    image=product.get("image"),
                )


def roubles(kopecks: Any) -> Any:
    """Convert whole *kopecks* to roubles. Validation finds other values.

    >>> roubles(12900)
    '129.00'
    """
    return str(Decimal(kopecks).scaleb(-2)) if type(kopecks) is int else kopecks
