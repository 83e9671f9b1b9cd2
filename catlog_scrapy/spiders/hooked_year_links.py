"""Year links of the shop Hooked on Hallmark."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class HookedYearLinks(YearLinks):
    """Year links in a table on the first page, since 1973. Product loads read these links."""

    name = "hooked_year_links"
    vendor = "hookedonhallmark_com"
    links = "table#years a"
