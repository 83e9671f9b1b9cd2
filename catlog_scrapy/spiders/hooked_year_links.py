"""Where the shop Hooked on Hallmark lists the products of each year."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class HookedYearLinks(YearLinks):
    """The shop's first page has a table of links to the years from 1973. Products refer to them."""

    name = "hooked_year_links"
    vendor = "hookedonhallmark_com"
    links = "table#years a"
