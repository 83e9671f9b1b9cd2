"""Small PNG pictures, whose bytes depend only on their name."""

import struct
import zlib
from functools import cache

from catlog_scrapy.demo.source import DemoReply

SIZE = 24


@cache
def picture(name: str) -> DemoReply:
    """Return a square in two colours with a transparent edge."""
    seed = zlib.crc32(name.encode())
    colours = [
        bytes(seed >> shift & 255 for shift in shifts) for shifts in ((0, 8, 16), (8, 16, 24))
    ]
    rows = []
    for y in range(SIZE):
        row = b"\0"  # no filter
        for x in range(SIZE):
            edge = min(x, y, SIZE - 1 - x, SIZE - 1 - y) < 2
            row += colours[(x // 6 + y // 6) % 2] + (b"\0" if edge else b"\xff")
        rows.append(row)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 6, 0, 0, 0)
    # Uncompressed, because another version of zlib would give other bytes.
    data = zlib.compress(b"".join(rows), 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return DemoReply(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks), "image/png")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
