"""What is new at Samokat, a grocery delivery."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from catlog_scrapy.base_spiders.browser_responses import BrowserResponses
from catlog_scrapy.items.groceries import Showcase, ShowcaseProduct


class SkLoadNew(BrowserResponses):
    """The category link «Что нового» makes the page ask for one showcase, 48 products at a time.

    {showcase {id, name}, page, pages, total, products [{id, name, specification, prices {current,
    old}, badges [..], inStock, image}]}; prices are in kopecks. Lists of showcases are no products.
    """

    name = "sk_load_new"
    record = (Showcase, ShowcaseProduct)
    clicks = (("CategoryLink_root", "Что нового"),)
    wanted = "/v2/showcases"
    unwanted = "list"

    def items(self, documents: list[dict[str, Any]]) -> Iterator[Any]:
        """Raises ValueError where the page did not ask for all that its showcase has."""
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
    """*kopecks* as roubles; what is no whole number stays as it is, for the check to find.

    >>> roubles(12900)
    '129.00'
    """
    return str(Decimal(kopecks).scaleb(-2)) if type(kopecks) is int else kopecks
