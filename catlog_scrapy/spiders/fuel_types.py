"""Fuel types that a network sells."""

from catlog_scrapy.base_spiders.named_list import NamedList
from catlog_scrapy.items.fuel import FuelType


class FuelTypes(NamedList):
    """Fuel types: GET /fuel-types [{id, name, icon}]. Kept by hand, the list hardly changes."""

    name = "fuel_types"
    record = FuelType
    path = "fuel-types"
