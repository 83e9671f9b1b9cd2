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
from catlog_scrapy.models.node import Node, NodeLease
from catlog_scrapy.models.provider import Provider
from catlog_scrapy.models.record import PartMark, Publication, Scope, StoredCursor
from catlog_scrapy.models.result import CatalogOperationInstanceResult, RejectedResult, ResultBatch
from catlog_scrapy.models.schedule import StoredSchedule
from catlog_scrapy.models.scheme import CatalogScheme, CatalogSchemeOperation, StoredKind
from catlog_scrapy.models.summary import CatalogSummary, PrunedDueTime

__all__ = [
    "ApiKey",
    "ApiUser",
    "Audit",
    "Catalog",
    "CatalogOperationInstanceResult",
    "CatalogScheme",
    "CatalogSchemeOperation",
    "CatalogSchemeOperationInstance",
    "CatalogSummary",
    "IdempotentRequest",
    "InstanceAttempt",
    "LoginFailure",
    "Node",
    "NodeLease",
    "PartMark",
    "Provider",
    "PrunedDueTime",
    "Publication",
    "RefreshToken",
    "RejectedResult",
    "ResultBatch",
    "Scope",
    "SigningKey",
    "StoredCursor",
    "StoredKind",
    "StoredSchedule",
]
