"""Project of a node, with a scheme that loads two things and may wait in between."""

import urllib.request
from contextlib import suppress

from tests.support.project import Project

CONFIGURATION = """
[settings]
default = shop.settings

[scrapyd]
application = catlog_scrapy.fleet.app.application
poll_interval = 0.2
"""

SPIDER = """
import asyncio
from pathlib import Path

from catlog_scrapy.records import Record
from scrapy import Spider


class Thing(Record, key="number", view="things"):
    number: int


class Things(Spider):
    name = "things"
    record = Thing
    hold: str = ""

    async def start(self):
        yield {"number": 1}
        while self.hold and not Path(self.hold).exists():
            await asyncio.sleep(0.05)
        yield {"number": 2}
"""

DECLARATION = """
[provider]
name = "maker"

[[scheme]]
name = "things"
max_errors = 50
[[scheme.operation]]
name = "things"
[[schedule]]
name = "always"
scheme = "things"
cron = "0 0 1 1 *"
"""


def write_maker(project: Project) -> None:
    """Write configuration, spider and declaration of the scheme maker/things."""
    project.write("scrapy.cfg", CONFIGURATION)
    project.write("shop/spiders/things.py", SPIDER)
    project.write("shop/providers/maker.toml", DECLARATION)


def answers(url: str) -> bool:
    """Return whether *url* answers with status 200."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=60) as response:
        return bool(response.status == 200)
    return False
