"""Rows of results in COPY's binary format."""

from collections.abc import Collection, Iterable, Mapping
from struct import Struct
from uuid import UUID

from catlog_scrapy.records.hashing import content_hash, content_hasher, key_hasher
from catlog_scrapy.records.validation import REMOVED_DATA, Row
from catlog_scrapy.store.queue.attempts import AttemptName

# The server reads COPY's binary format at two thirds of the cost of text. The columns that all rows
# of an attempt and kind share come first.
COPY = """COPY catlog.catalog_operation_instance_result
    (instance_id, attempt, kind, seq, key_hash, content_hash, key, link, data)
    FROM STDIN (FORMAT binary)"""
COPIED_COLUMNS = 9
# Signature, flags, and the length of the header's extension; a row without columns ends the rows.
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

# A column is its length in bytes, then its value. NULL has the length -1.
pack_length = Struct(">i").pack
NULL = pack_length(-1)
pack_shared = Struct(">h i16s ii i").pack
# Number, hash of the key, hash of the content or NULL, and the length of the key.
pack_hashes = Struct(">ii i16s i16s i").pack
pack_key_hash = Struct(">ii i16s i i").pack
# The content hash of a record that the source has removed.
REMOVED_HASH = UUID(int=0)


class RowPrefix:
    """Columns that the rows of an attempt share, and the hashes of its keys and contents.

    *untracked* are the untracked fields of the attempt's kinds.
    """

    def __init__(
        self,
        name: AttemptName,
        provider: UUID,
        untracked: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.hash_key = key_hasher(provider)
        self.hash_content = {
            kind: content_hasher(fields) for kind, fields in (untracked or {}).items() if fields
        }
        self._name = name
        self._by_kind: dict[str, bytes] = {}

    def of_kind(self, kind: str) -> bytes:
        """Return the columns that the rows of a *kind* share."""
        shared = self._by_kind.get(kind)
        if shared is None:
            encoded, instance = kind.encode(), self._name.instance.bytes
            shared = self._by_kind[kind] = (
                pack_shared(COPIED_COLUMNS, 16, instance, 4, self._name.number, len(encoded))
                + encoded
            )
        return shared


def write_rows(batch: bytearray, prefix: RowPrefix, number: int, rows: Iterable[Row]) -> int:
    """Append *rows* in COPY's binary format, numbered from *number*; return the next number."""
    of_kind, hash_key, hashers = prefix.of_kind, prefix.hash_key, prefix.hash_content
    for kind, key, data, link in rows:
        encoded = key.encode()
        id_, length = hash_key(encoded), len(encoded)
        batch += of_kind(kind)
        if data is None:
            batch += pack_key_hash(4, number, 16, id_, -1, length)
        else:
            hash_content = hashers.get(kind, content_hash)
            content = REMOVED_HASH.bytes if data == REMOVED_DATA else hash_content(data)
            batch += pack_hashes(4, number, 16, id_, 16, content, length)
        batch += encoded
        if link is None:
            batch += NULL
        else:
            encoded = link.encode()
            batch += pack_length(len(encoded))
            batch += encoded
        if data is None or data == REMOVED_DATA:
            batch += NULL
        else:
            batch += pack_length(len(data))
            batch += data
        number += 1
    return number


def copy_message(batch: bytearray) -> bytes:
    """Return the data of a COPY of the rows of *batch*."""
    return b"".join((COPY_HEADER, batch, COPY_TRAILER))
