"""Hashes that identify records and their contents: BLAKE2b of 128 bits, stored as UUIDs.

The hash is cryptographic because sources choose keys and contents: whoever found two keys with one
hash could overwrite a record.
"""

from hashlib import blake2b
from uuid import UUID

HASH_BYTES = 16


def record_id(provider: UUID, key: str) -> UUID:
    """Return the id of the record with this text *key* of the *provider*."""
    return UUID(hex=key_hash(provider.bytes, key.encode()))


def key_hash(provider: bytes, key: bytes) -> str:
    """Return the hash of a text key as hexadecimal digits.

    The input is the 16 bytes of the provider's id, then the key in UTF-8.
    """
    return blake2b(provider + key, digest_size=HASH_BYTES).hexdigest()


def content_hash(data: bytes) -> str:
    """Return the hash of a record's JSON text as hexadecimal digits.

    Equal hashes mean equal contents. Different hashes may be two notations of one content.
    """
    return blake2b(data, digest_size=HASH_BYTES).hexdigest()
