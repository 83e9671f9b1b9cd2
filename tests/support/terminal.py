"""Commands at a terminal of 80 columns."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path

COLUMNS = 80
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


def at_terminal(folder: Path, environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run `scrapy ARGUMENTS...` at a terminal; return the exit code and the text, unwrapped."""
    outer, inner = pty.openpty()
    ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "scrapy", *arguments],
        cwd=folder,
        env={**environment, "TERM": "xterm"},
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    written = bytearray()
    try:
        while chunk := _read(outer):
            written += chunk
    finally:
        os.close(outer)
        code = process.wait()
    text = ESCAPE.sub("", written.decode("utf-8", "replace"))
    return code, text.replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux reports the end of the last process so
        return b""
