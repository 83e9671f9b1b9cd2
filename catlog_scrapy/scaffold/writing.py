"""Writing of several files: all or none."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.testing.saved_pages import label


def write_all(files: Mapping[Path, str]) -> None:
    """Write all *files*. If a file cannot be written, restore the others and raise NotPossible."""
    with ExitStack() as undo:
        for path, text in files.items():
            try:
                former = path.read_bytes() if path.exists() else None
                undo.callback(_restore, path, former)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, text)
            except OSError as error:
                raise NotPossible(
                    f"{label(path)} cannot be written ({error.strerror}); nothing was generated."
                ) from error
        undo.pop_all()


def write(path: Path, text: str) -> None:
    """Write *text* without a conversion of line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def _restore(path: Path, former: bytes | None) -> None:
    if former is not None:
        path.write_bytes(former)
    elif path.parent.is_dir():
        path.unlink(missing_ok=True)
