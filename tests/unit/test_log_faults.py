"""Logs on a full disk, for which Linux has a device."""

import logging
from pathlib import Path

import pytest
from scrapy.settings import Settings

from catlog_scrapy.crawl.log_faults import report_faults_once
from catlog_scrapy.worker.attempt_logs import attempt_log, install_attempt_logs

FULL = "/dev/full"
LOST = f"log lines are lost: {FULL}: No space left on device\n"


def test_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.FileHandler(FULL)
    for _ in range(2):
        report_faults_once(handler)
    logger = logging.getLogger("test_full_disk")
    logger.propagate = False
    logger.addHandler(handler)
    for number in range(1000):
        logger.error("line %d", number)
    assert capsys.readouterr().err == LOST


def test_other_logging_errors_are_still_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    report_faults_once(handler)
    logger = logging.getLogger("test_other_errors")
    logger.propagate = False
    logger.addHandler(handler)
    logger.error("%d", "text")
    handler.close()
    assert "--- Logging error ---" in capsys.readouterr().err


def test_attempt_log_on_a_full_disk_costs_only_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    settings = Settings()
    install_attempt_logs(settings)
    with attempt_log(FULL, settings):
        for _ in range(100):
            logging.getLogger("a spider").error("x" * 10_000)
    assert capsys.readouterr().err == LOST
