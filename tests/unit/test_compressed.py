"""Verification of compressed bodies."""

import bz2
import gzip

import pytest

from catlog_scrapy.crawl.compressed import DamagedStream, verify_body

MIB = 1 << 20


def test_file_that_unpacks_to_more_than_the_limit_is_not_verified() -> None:
    # 48 bytes unpack to 8 MiB: without a limit, a small file would keep the event loop for hours.
    body = bz2.compress(b"\0" * (8 * MIB))
    assert verify_body(body, [], max_bytes=0)
    assert verify_body(body, [], max_bytes=8 * MIB)
    assert not verify_body(body, [], max_bytes=MIB)


def test_large_file_inside_a_complete_coding_is_verified_by_the_coding() -> None:
    body = gzip.compress(bz2.compress(b"\0" * (8 * MIB)))
    assert verify_body(body, ["gzip"], max_bytes=MIB)


def test_unpacking_stops_at_the_limit() -> None:
    body = bz2.compress(b"\0" * (8 * MIB))[:-4]
    with pytest.raises(DamagedStream):
        verify_body(body, [], max_bytes=0)
    assert not verify_body(body, [], max_bytes=MIB)
