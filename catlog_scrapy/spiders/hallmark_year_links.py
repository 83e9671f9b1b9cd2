"""Where the Hallmark ornament shop lists the products of each year."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class HallmarkYearLinks(YearLinks):
    """The shop's first page links to a page for every year from 1973. Products refer to them."""

    name = "hallmark_year_links"
    vendor = "hallmark_ornaments_com"
    links = "ul.year-list a.year-link"
