"""Apply a block of a documentation page to a file: `python tests/support/edit.py BLOCK FILE`.

The block is a diff without its head: lines of the file as they are (after a space), those to be
removed (-) and those to be put in (+). Where it has a line `@@`, the next place begins.
"""

import sys
from pathlib import Path


def edited(text: str, block: str) -> str:
    """Return *text* after the edit. Raises ValueError unless each place is in it exactly once."""
    for place in block.split("@@\n"):
        lines = place.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        if text.count(old) != 1:
            raise ValueError(f"{text.count(old)} times in the file:\n{old}")
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    block, file = map(Path, sys.argv[1:])
    file.write_text(edited(file.read_text("utf-8"), block.read_text("utf-8")), encoding="utf-8")
