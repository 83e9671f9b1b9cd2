"""Year links of the Hallmark ornament shop."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class HallmarkYearLinks(YearLinks):
    """Year links on the first page, for every year since 1973. Product loads read these links."""

    name = "hallmark_year_links"
    vendor = "hallmark_ornaments_com"
    links = "ul.year-list a.year-link"
