"""Schemes and queries of the demo for each source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Show:
    """Source of the demo: the schemes to load twice, and queries by title.

    A source with `needs_browser` is left out on a machine without a browser.
    """

    title: str
    schemes: Sequence[tuple[str, str]]
    queries: Mapping[str, str]
    needs_browser: bool = False


SHOPS = ("hallmark_ornaments_com", "hookedonhallmark_com", "ornament_shop_com")

SHOWS = (
    Show(
        "Groceries: a page in a browser",
        [("SK", "new")],
        {
            "New in the shop": """
                select name, specification, price, old_price from showcase_products
                order by name limit 5""",
        },
        needs_browser=True,
    ),
    Show(
        "Ornaments: three shops, three markups",
        [(shop, scheme) for shop in SHOPS for scheme in ("year_links", "products")],
        {
            "Products by vendor": """
                select vendor, count(distinct(sku)) from products group by vendor;""",
            "Products by year": """
                select release_year, count(distinct(sku)) from products
                where vendor = 'hallmark_ornaments_com' group by release_year;""",
            "The newest products": """
                select name, price, release_year, created_at from products
                order by created_at desc limit 5;""",
            "Prices that changed": """
                select former.name, former.price as was, now.price as is, former.valid_to as since
                from products_history former join products_history now
                    using (vendor, sku, name, link)
                where former.valid_to = now.valid_from and former.change = 'changed'
                order by since desc, name limit 5""",
        },
    ),
    Show(
        "Fuel stations: two sources, one view",
        [("tatneft", scheme) for scheme in ("stations", "prices", "references")],
        {
            "Fuel stations, united from both sources": """
                select id, number, address, jsonb_path_query_array(fuels, '$[*].price') as prices,
                    jsonb_path_query_array(services, '$[*].name') as services
                from fuel_stations order by id""",
        },
    ),
    Show(
        "A learning platform: a day's attempts",
        [("learning", "attempts")],
        {
            "Where learners are stuck": """
                select day, course, task, attempts, solved, solved_percent, users
                from learning_statistics where submitted > 5 order by solved_percent, task
                limit 5""",
            "Rejected attempts": """
                select errors ->> 0 as reason, count(*) from catlog.rejected_result
                group by 1 order by 2 desc""",
        },
    ),
    Show(
        "School data: one full load, then the changes",
        [("school", scheme) for scheme in ("persons", "organisations", "classes", "pupils")],
        {
            "Requests of each load": """
                select o.name as operation, case a.read_from when '' then 'all' else a.read_from
                    end as since, a.accepted as records,
                    a.stats ->> 'downloader/request_count' as requests
                from catlog.instance_attempt a
                join catlog.catalog_scheme_operation_instance i on i.id = a.instance_id
                join catlog.catalog_scheme_operation o on o.id = i.operation_id
                where o.mode = 'incremental' and a.read_from is not null and a.outcome = 'done'
                order by a.started_at desc limit 8""",
            "Pupils that arrived and left": """
                select change, count(*) from pupils_history where change is not null
                group by change""",
        },
    ),
)
