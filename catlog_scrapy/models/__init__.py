"""The mapped tables, one aggregate a file. They hold no queries: those are in `store`."""

from catlog_scrapy.models.access import (
    ApiKey,
    ApiUser,
    Audit,
    IdempotentRequest,
    LoginFailure,
    RefreshToken,
    SigningKey,
)
from catlog_scrapy.models.catalog import Catalog, CatalogSchemeOperationInstance, InstanceAttempt
from catlog_scrapy.models.node import Node
from catlog_scrapy.models.provider import Provider
from catlog_scrapy.models.record import Cursor, Publication, Record, RecordVersion, Scope
from catlog_scrapy.models.result import CatalogOperationInstanceResult, RejectedResult, ResultBatch
from catlog_scrapy.models.schedule import Schedule
from catlog_scrapy.models.scheme import CatalogScheme, CatalogSchemeOperation, Kind

__all__ = [
    "ApiKey",
    "ApiUser",
    "Audit",
    "Catalog",
    "CatalogOperationInstanceResult",
    "CatalogScheme",
    "CatalogSchemeOperation",
    "CatalogSchemeOperationInstance",
    "Cursor",
    "IdempotentRequest",
    "InstanceAttempt",
    "Kind",
    "LoginFailure",
    "Node",
    "Provider",
    "Publication",
    "Record",
    "RecordVersion",
    "RefreshToken",
    "RejectedResult",
    "ResultBatch",
    "Schedule",
    "Scope",
    "SigningKey",
]
