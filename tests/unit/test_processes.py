"""Identities of processes."""

import os
import subprocess
import sys

import pytest

from catlog_scrapy.processes import is_alive, process_identity

PRINT = "from catlog_scrapy.processes import process_identity; print(process_identity())"


def test_this_process_is_alive() -> None:
    assert is_alive(process_identity()) is True


def test_ended_process_is_not_alive() -> None:
    ended = subprocess.check_output([sys.executable, "-c", PRINT], text=True).strip()
    assert is_alive(ended) is False


def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", PRINT], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    identity = child.stdout.read().strip()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but is not reaped
    assert is_alive(identity) is False
    child.wait()
    child.stdout.close()


def test_later_process_with_the_same_id_is_another() -> None:
    place, pid, started_at = process_identity().split(" ")
    assert is_alive(f"{place} {pid} {int(started_at) - 1}") is False


@pytest.mark.parametrize("identity", ["", "elsewhere 1 2", "a-random-name"])
def test_process_of_another_machine_is_unknown(identity: str) -> None:
    assert is_alive(identity) is None
