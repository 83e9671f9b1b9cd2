"""Verification of compressed bodies: whether each stream reaches its own end.

Scrapy and many programs return what they could unpack of a stream that ends early or does not match
its checksum, and say nothing.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

# The packages with which Scrapy unpacks: which of several depends on the version of Python.
from scrapy.utils._compression import brotli, zstd  # type: ignore[attr-defined]

INPUT_BYTES = 65536
OUTPUT_BYTES = 1 << 20


class DamagedStream(Exception):
    """Compressed stream that ends early or is invalid; raised by this module."""


class _Zlib:
    """Decompressor of zlib with the attributes of the other decompressors."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(unpacked) < max_length
        return unpacked

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


class _Brotli:
    """Decompressor of Brotli with the attributes of the other decompressors."""

    unused_data = b""

    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = bytes(self._brotli.process(data, output_buffer_limit=max_length))
        # The last output may come after the last input.
        self.needs_input = not unpacked
        return unpacked

    @property
    def eof(self) -> bool:
        return bool(self._brotli.is_finished())


class Format(NamedTuple):
    """Compressed format: a maker of decompressors, and the `magic` of its streams, if any."""

    name: str
    decompressor: Callable[[], Any]
    magic: bytes = b""


GZIP = Format("gzip", lambda: _Zlib(31), b"\x1f\x8b\x08")
ZSTD = Format("zstd", zstd.ZstdDecompressor, b"\x28\xb5\x2f\xfd")
ZLIB = Format("deflate", lambda: _Zlib(15))
# Some servers send deflate without the header of zlib; Scrapy, too, accepts it.
RAW_DEFLATE = Format("deflate", lambda: _Zlib(-15))
CODINGS = {
    "gzip": GZIP,
    "x-gzip": GZIP,
    "deflate": ZLIB,
    "br": Format("brotli", _Brotli),
    "zstd": ZSTD,
}
# Files that spiders unpack themselves, such as `sitemap.xml.gz`.
FILES = (
    GZIP,
    ZSTD,
    *(Format("bzip2", bz2.BZ2Decompressor, b"BZh%d1AY&SY" % level) for level in range(1, 10)),
    Format("xz", lzma.LZMADecompressor, b"\xfd7zXZ\x00"),
)
ERRORS = (zlib.error, OSError, lzma.LZMAError, zstd.ZstdError, brotli.error)


def verify_body(body: bytes, codings: Sequence[str], max_bytes: int) -> bool:
    """Verify a body with its content *codings*, in the order in which the server applied them.

    Returns whether the body marks its own end, so that it is certainly complete. A body or a file
    of more than *max_bytes* unpacked counts as not verified: Scrapy refuses such a body, and a
    small file may unpack to any size. Raises DamagedStream.
    """
    is_verified = False
    for coding in reversed(codings):
        if coding not in CODINGS:
            break  # Scrapy leaves the body packed for the spider
        unpacked, size = [], 0
        for chunk in _unpack(CODINGS[coding], body):
            size += len(chunk)
            if 0 < max_bytes < size:
                return False
            unpacked.append(chunk)
        body, is_verified = b"".join(unpacked), True
    for format_ in FILES:
        if body.startswith(format_.magic):
            size = 0
            for chunk in _unpack(format_, body):
                size += len(chunk)
                if 0 < max_bytes < size:
                    return is_verified
            return True
    return is_verified


def _unpack(format_: Format, body: bytes) -> Iterator[bytes]:
    """Yield the unpacked chunks of all streams in *body*; ignore other data behind them."""
    while True:
        rest = yield from _unpack_stream(format_, body)
        body = rest.lstrip(b"\0")
        magic = format_.magic[: len(body)]
        if not body or not magic or not body.startswith(magic):
            return


def _unpack_stream(format_: Format, body: bytes) -> Generator[bytes, None, bytes]:
    """Yield the unpacked chunks of the first stream in *body*; return what follows the stream."""
    decompressor, size = format_.decompressor(), 0
    try:
        for start in range(0, len(body), INPUT_BYTES):
            data = body[start : start + INPUT_BYTES]
            while not decompressor.eof:
                chunk = decompressor.decompress(data, OUTPUT_BYTES)
                data = b""
                size += len(chunk)
                yield chunk
                if decompressor.needs_input:
                    break
            if decompressor.eof:
                return bytes(decompressor.unused_data) + body[start + INPUT_BYTES :]
    except ERRORS as error:
        if format_ is ZLIB and not size:
            return (yield from _unpack_stream(RAW_DEFLATE, body))
        raise DamagedStream(f"its {format_.name} data is damaged ({error})") from error
    raise DamagedStream(f"its {format_.name} data ends early")
