"""Where the German ornament shop lists the products of each year."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class OrnamentShopYearLinks(YearLinks):
    """The shop's first page offers the years from 1973 for selection. Products refer to them."""

    name = "ornament_shop_year_links"
    vendor = "ornament_shop_com"
    links = "select.jahrgaenge option"
    address = "value"
