"""Credentials of the nodes of this project."""

import os

from scrapyd.config import Config


def credentials(config: Config) -> tuple[str, str]:
    """Return user name and password, from scrapyd's variables or its section of scrapy.cfg."""
    username, password = (
        os.getenv(f"SCRAPYD_{name.upper()}") or config.get(name, "")
        for name in ("username", "password")
    )
    return username, password
