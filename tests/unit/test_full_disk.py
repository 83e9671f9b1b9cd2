"""Reasons of an unavailable database on a full disk."""

from pathlib import Path

import pytest
from sqlalchemy import exc

from catlog_scrapy.db import embedded, engine
from catlog_scrapy.db.refusals import refusal_of


@pytest.mark.parametrize(
    ("full", "expected"),
    [(True, "; the disk of {folder} is full"), (False, "")],
)
def test_missing_socket_names_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full: bool, expected: str
) -> None:
    monkeypatch.setattr(engine, "is_full", lambda folder: full)
    said = (
        f'connection to server on socket "{tmp_path}/sockets/.s.PGSQL.5432" failed: No such file or'
        " directory"
    )
    error = exc.OperationalError("SELECT 1", {}, Exception(f"{said}\n\tIs the server running?"))
    named = said + expected.format(folder=tmp_path)
    assert engine.reason(error) == named
    assert str(refusal_of(error)).startswith(f"the database failed: {named}; nothing was left")


def test_other_reasons_do_not_look_at_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "is_full", lambda folder: True)
    assert engine.reason(ValueError("connection refused")) == "connection refused"


def test_failed_start_names_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "is_full", lambda folder: True)
    error = embedded.EmbeddedServer(tmp_path)._failure("does not start", "Correct it")
    assert f"does not start: the disk of {tmp_path} is full. Free some space" in str(error)
