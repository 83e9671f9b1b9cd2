"""Deletion of old attempt logs, which keeps the logs of running attempts."""

import os
import time
from pathlib import Path

import pytest

from catlog_scrapy.worker.attempt_logs import old_logs
from tests.support.project import Project

HOUR = 3600.0
DAY = 24 * HOUR


def given_a_log(folder: Path, name: str, *, age: float, size: int = 100) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    log.write_bytes(b"x" * size)
    written = time.time() - age
    os.utime(log, (written, written))
    return log


def names(logs: list[Path]) -> list[str]:
    return [log.stem for log in logs]


def test_old_logs_are_deleted_even_below_the_size_limit(tmp_path: Path) -> None:
    for days in (1, 5, 3):
        given_a_log(tmp_path, f"{days}", age=days * DAY)
    assert names(old_logs(tmp_path, 2 * DAY, 10_000)) == ["5", "3"]


def test_oldest_logs_are_deleted_until_the_rest_fits(tmp_path: Path) -> None:
    for days in (2, 4, 1, 3):
        given_a_log(tmp_path, f"{days}", age=days * DAY)
    assert names(old_logs(tmp_path, 30 * DAY, 400)) == []
    assert names(old_logs(tmp_path, 30 * DAY, 399)) == ["4"]
    assert names(old_logs(tmp_path, 30 * DAY, 150)) == ["4", "3", "2"]
    # Deleted old logs count for the size limit too.
    assert names(old_logs(tmp_path, 2.5 * DAY, 200)) == ["4", "3"]


def test_log_of_a_possibly_running_attempt_is_kept(tmp_path: Path) -> None:
    given_a_log(tmp_path, "running", age=HOUR / 2, size=10_000)
    given_a_log(tmp_path, "ended", age=2 * HOUR)
    assert names(old_logs(tmp_path, 60.0, 0)) == ["ended"]


def test_concurrently_deleted_log_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, here = (given_a_log(tmp_path, name, age=5 * DAY) for name in ("gone", "here"))
    glob = Path.glob

    def glob_then_delete(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "glob", glob_then_delete)
    assert old_logs(tmp_path, DAY, 10_000) == [here]
    assert old_logs(tmp_path / "nowhere", DAY, 10_000) == []


def test_prune_keeps_this_machines_logs_within_the_size_limit(
    database_url: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, database_url, CATLOG_LOG_SIZE="150")
    logs = tmp_path / ".catlog" / "logs"
    for days in (1, 2, 3):
        given_a_log(logs, f"{days}", age=days * DAY)
    assert "2 logs" in project.scrapy("prune", "--dry-run")
    assert len(list(logs.iterdir())) == 3
    assert "2 logs" in project.scrapy("prune")
    assert names(list(logs.iterdir())) == ["1"]
