"""Record types of the items that spiders yield."""

from catlog_scrapy.records.inputs import UnixTime
from catlog_scrapy.records.lookup import make_record_type, record_types
from catlog_scrapy.records.media import FilesOf, ImagesOf
from catlog_scrapy.records.record import Draft, Record
from catlog_scrapy.records.yields import Batch, Cursor, Removed, Unchanged

__all__ = [
    "Batch",
    "Cursor",
    "Draft",
    "FilesOf",
    "ImagesOf",
    "Record",
    "Removed",
    "Unchanged",
    "UnixTime",
    "make_record_type",
    "record_types",
]
