"""Record types: what a spider yields and what SQL shows."""

from catlog_scrapy.records.media import FilesOf, ImagesOf
from catlog_scrapy.records.record import (
    Batch,
    Cursor,
    Draft,
    Record,
    Removed,
    Unchanged,
    record_type,
    record_types,
)

__all__ = [
    "Batch",
    "Cursor",
    "Draft",
    "FilesOf",
    "ImagesOf",
    "Record",
    "Removed",
    "Unchanged",
    "record_type",
    "record_types",
]
