"""What docs/sources/ornaments.md prints below its queries is what they answer."""

import re
from pathlib import Path

from tests.acceptance.test_docs import FENCE, ROOT, given_a_checkout, shell

TIME = re.compile(r"\d{4}-\d\d-\d\d( [\d:.+]+)?")


def test_the_queries_answer_as_printed(tmp_path: Path) -> None:
    checkout = given_a_checkout(tmp_path)
    text = (ROOT / "docs" / "sources" / "ornaments.md").read_text(encoding="utf-8")
    answer, compared = "", 0
    for language, _, body in FENCE.findall(text):
        if language == "sh":
            answer = shell(checkout, body)
        elif language == "text":
            # Records of one load are created at once, so that only the first of them is certain.
            rows = 2 if "created_at" in body else None
            assert lines(answer)[:rows] == lines(body)[:rows]
            compared += 1
    assert compared == 4


def lines(table: str) -> list[list[str]]:
    """The words of each line, without the moments, which differ."""
    return [TIME.sub("", line).split() for line in table.splitlines() if line.strip()]
