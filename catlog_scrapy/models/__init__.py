"""Mapped tables, one aggregate in a file. The queries are in `store`."""

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
from catlog_scrapy.models.record import (
    Publication,
    RecordVersion,
    Scope,
    StoredCursor,
    StoredRecord,
)
from catlog_scrapy.models.result import CatalogOperationInstanceResult, RejectedResult, ResultBatch
from catlog_scrapy.models.schedule import StoredSchedule
from catlog_scrapy.models.scheme import CatalogScheme, CatalogSchemeOperation, StoredKind

__all__ = [
    "ApiKey",
    "ApiUser",
    "Audit",
    "Catalog",
    "CatalogOperationInstanceResult",
    "CatalogScheme",
    "CatalogSchemeOperation",
    "CatalogSchemeOperationInstance",
    "IdempotentRequest",
    "InstanceAttempt",
    "LoginFailure",
    "Node",
    "Provider",
    "Publication",
    "RecordVersion",
    "RefreshToken",
    "RejectedResult",
    "ResultBatch",
    "Scope",
    "SigningKey",
    "StoredCursor",
    "StoredKind",
    "StoredRecord",
    "StoredSchedule",
]
