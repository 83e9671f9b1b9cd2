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
    log = server.folder / f"load-{server.number()}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", *words],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"scrapy {' '.join(words)} failed:\n{log.read_text()[-4000:]}")
    return used.ru_maxrss / 1024
