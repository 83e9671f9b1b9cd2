"""Files written together, or not at all."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.testing.saved_pages import label


def write_all(files: Mapping[Path, str]) -> None:
    """Write all *files*, or, where one of them fails, none. Raises NotPossible."""
    with ExitStack() as undo:
        for path, text in files.items():
            try:
                former = path.read_bytes() if path.exists() else None
                undo.callback(_restore, path, former)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, text)
            except OSError as error:
                raise NotPossible(
                    f"{label(path)} cannot be written ({error.strerror}); nothing was made."
                ) from error
        undo.pop_all()


def write(path: Path, text: str) -> None:
    """Write *text* as it is: line ends, too, are its own."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def _restore(path: Path, former: bytes | None) -> None:
    if former is not None:
        path.write_bytes(former)
    elif path.parent.is_dir():
        path.unlink(missing_ok=True)
