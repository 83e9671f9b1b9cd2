"""Services of fuel stations besides fuel."""

from catlog_scrapy.base_spiders.named_list import NamedList
from catlog_scrapy.items.fuel import FuelService


class FuelServices(NamedList):
    """Services: GET /services [{id, name, icon}]. The list is kept by hand and hardly changes."""

    name = "fuel_services"
    record = FuelService
    path = "services"
