"""Runs of all benchmarks at a small size; their figures are not tested."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]


def test_benchmarks_print_their_result_lines() -> None:
    from benchmarks.__main__ import BENCHMARKS

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--small"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("bench ")]
    assert [line[1] for line in lines] == list(BENCHMARKS)
    assert {line[4] for line in lines} <= {"ok", "short"}
