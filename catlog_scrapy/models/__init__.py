"""The mapped tables, one aggregate a file. They hold no queries: those are in `store`."""

from catlog_scrapy.models.catalog import Catalog, CatalogSchemeOperationInstance, InstanceAttempt
from catlog_scrapy.models.node import Node
from catlog_scrapy.models.provider import Provider
from catlog_scrapy.models.record import Cursor, Record, RecordVersion, Scope
from catlog_scrapy.models.result import CatalogOperationInstanceResult, RejectedResult
from catlog_scrapy.models.schedule import Schedule
from catlog_scrapy.models.scheme import CatalogScheme, CatalogSchemeOperation, Kind

__all__ = [
    "Catalog",
    "CatalogOperationInstanceResult",
    "CatalogScheme",
    "CatalogSchemeOperation",
    "CatalogSchemeOperationInstance",
    "Cursor",
    "InstanceAttempt",
    "Kind",
    "Node",
    "Provider",
    "Record",
    "RecordVersion",
    "RejectedResult",
    "Schedule",
    "Scope",
]
