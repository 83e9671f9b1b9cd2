"""Commands in catlog's own project, on the demo sources."""

import os
import subprocess
import sys

from sqlalchemy import Engine

from benchmarks.common import ROOT, Server
from catlog_scrapy.demo import school
from catlog_scrapy.demo.server import SOURCES, DemoServer


def scrapy(server: Server, engine: Engine, sources: DemoServer, *words: str) -> float:
    """Run `scrapy` *words* in catlog's own project; return the peak in MiB. Raises RuntimeError."""
    environment = os.environ | {
        "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CATLOG_HOME": str(server.folder / "home-of-the-sources"),
        "CATLOG_SECRET_SCHOOL_USER": school.USER,
        "CATLOG_SECRET_SCHOOL_PASSWORD": school.PASSWORD,
    }
    for source in SOURCES.values():
        name = f"CATLOG_BASE_URL_{source.provider.upper()}"
        environment[name] = f"{sources.url}/{source.name}"
    number = server.number()
    peak, log = (server.folder / f"load-{number}.{name}" for name in ("peak", "log"))
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.watched", str(peak), *words],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"scrapy {' '.join(words)} failed:\n{log.read_text()[-4000:]}")
    return float(peak.read_text())
