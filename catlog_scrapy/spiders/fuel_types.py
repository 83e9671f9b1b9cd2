"""The sorts of fuel that a network sells."""

from catlog_scrapy.base_spiders.named_list import NamedList
from catlog_scrapy.items.fuel import FuelType


class FuelTypes(NamedList):
    """GET /fuel-types: [{id, name, icon}]. Its owner kept the list by hand; it hardly changes."""

    name = "fuel_types"
    record = FuelType
    path = "fuel-types"
