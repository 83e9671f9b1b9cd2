"""Year links of the German ornament shop."""

from catlog_scrapy.base_spiders.year_links import YearLinks


class OrnamentShopYearLinks(YearLinks):
    """Year links in a selection on the first page, since 1973. Product loads read these links."""

    name = "ornament_shop_year_links"
    vendor = "ornament_shop_com"
    links = "select.jahrgaenge option"
    address = "value"
