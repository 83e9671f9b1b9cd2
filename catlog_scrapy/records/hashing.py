"""Hashes that identify records and their contents: BLAKE2b of 128 bits, stored as UUIDs.

The hash is cryptographic because sources choose keys and contents: whoever found two keys with one
hash could overwrite a record.
"""

import json
from collections.abc import Callable, Collection
from hashlib import blake2b
from uuid import UUID

HASH_BYTES = 16


def record_id(provider: UUID, key: str) -> UUID:
    """Return the id of the record with this text *key* of the *provider*."""
    return UUID(bytes=key_hasher(provider)(key.encode()))


def key_hasher(provider: UUID) -> Callable[[bytes], bytes]:
    """Return the function that hashes text keys of the *provider*.

    The input is the 16 bytes of the provider's id, then the key in UTF-8.
    """
    copy = blake2b(provider.bytes, digest_size=HASH_BYTES).copy

    def hash_key(key: bytes) -> bytes:
        hasher = copy()
        hasher.update(key)
        return hasher.digest()

    return hash_key


def content_hash(data: bytes) -> bytes:
    """Return the hash of a record's JSON text.

    Equal hashes mean equal contents. Different hashes may be two notations of one content.
    """
    return blake2b(data, digest_size=HASH_BYTES).digest()


def content_hasher(untracked: Collection[str]) -> Callable[[bytes], bytes]:
    """Return the function that hashes a record's JSON text without the *untracked* fields."""

    def hash_content(data: bytes) -> bytes:
        fields = json.loads(data)
        tracked = {name: value for name, value in fields.items() if name not in untracked}
        return content_hash(json.dumps(tracked, separators=(",", ":")).encode())

    return hash_content
