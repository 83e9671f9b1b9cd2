"""What the stations of a fuel network offer besides fuel."""

from catlog_scrapy.base_spiders.named_list import NamedList
from catlog_scrapy.items.fuel import FuelService


class FuelServices(NamedList):
    """GET /services: [{id, name, icon}]. Its owner kept the list by hand; it hardly changes."""

    name = "fuel_services"
    record = FuelService
    path = "services"
