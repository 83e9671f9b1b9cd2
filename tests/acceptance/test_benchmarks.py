"""Runs of all benchmarks at a tiny size; their figures are not tested."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from benchmarks.__main__ import BENCHMARKS, BY_NAME_ONLY
from benchmarks.common import Server, open_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
COLUMNS = 80


def test_benchmarks_print_their_result_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--small", *BENCHMARKS, *BY_NAME_ONLY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert all(len(line) <= COLUMNS for line in [head, *lines])
    assert all({"ok", "short"} & set(line.split()) for line in lines), lines
    printed = [line.split()[0] for line in lines]
    assert len(set(printed)) == len(printed) >= len(BENCHMARKS) + len(BY_NAME_ONLY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with open_server() as server:
        yield server


@pytest.mark.parametrize("closes", [False, True], ids=["open", "closed"])
def test_meter_counts_the_cpu_of_a_connection(server: Server, closes: bool) -> None:
    dsn = make_url(server.url).set(drivername="postgresql").render_as_string(hide_password=False)
    query = "SELECT count(*) FROM generate_series(1, 2000000)"

    opened = []

    def work() -> None:
        opened.append(psycopg2.connect(dsn))
        opened[-1].cursor().execute(query)
        if closes:
            opened[-1].close()

    cost = server.meter.measure(work)
    opened[-1].close()
    assert cost.client_s < 0.05 < cost.server_s
