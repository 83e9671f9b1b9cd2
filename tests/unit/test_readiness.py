"""Readiness of services: a socket that has no listener, and folders with long names."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from catlog_scrapy.readiness import NOTIFY_SOCKET, Readiness

SERVICE = "from catlog_scrapy.readiness import notify_ready; notify_ready('here'); print('works')"


def run_service(address: str) -> str:
    return subprocess.check_output(
        [sys.executable, "-c", SERVICE], env={NOTIFY_SOCKET: address}, text=True
    )


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@catlog-nobody", "x" * 200, ""])
def test_service_works_without_a_listener(address: str) -> None:
    assert run_service(address) == "works\n"


def test_service_is_ready_where_the_path_of_tmpdir_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    readiness = Readiness()
    try:
        assert run_service(readiness.address) == "works\n"
        assert readiness.wait(lambda: True) == "here"
    finally:
        readiness.close()
    assert not Path(readiness.address).parent.exists()
