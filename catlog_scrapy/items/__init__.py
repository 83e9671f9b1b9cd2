"""Record types: what a spider yields and what SQL shows."""

from catlog_scrapy.items.record import Batch, Draft, Record, Unchanged, record_type, record_types

__all__ = ["Batch", "Draft", "Record", "Unchanged", "record_type", "record_types"]
