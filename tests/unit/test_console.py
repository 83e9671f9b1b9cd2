"""Width of what commands print."""

import io

import pytest

from catlog_scrapy.console import make_console


@pytest.mark.parametrize(("columns", "width"), [(None, 200), ("100", 100), ("wide", 200)])
def test_width_outside_a_terminal_is_that_of_columns(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert make_console(file=io.StringIO()).width == width
