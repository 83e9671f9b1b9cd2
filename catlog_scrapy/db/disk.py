"""Space on the disk of the embedded server."""

import shutil
from pathlib import Path

# PostgreSQL needs room for a segment of its log (16 MB) to start.
MIN_FREE_BYTES = 32 * 1024 * 1024


def is_full(folder: Path) -> bool:
    """Return whether the disk of *folder* has no room for PostgreSQL."""
    return shutil.disk_usage(folder).free < MIN_FREE_BYTES
