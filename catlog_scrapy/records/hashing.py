"""Hashes that identify records and their contents: BLAKE2b of 128 bits, stored as UUIDs."""

from hashlib import blake2b
from uuid import UUID

HASH_BYTES = 16


def record_id(provider: UUID, key: str) -> UUID:
    """Return the id of the record with this text *key* of the *provider*."""
    return UUID(bytes=blake2b(provider.bytes + key.encode(), digest_size=HASH_BYTES).digest())
