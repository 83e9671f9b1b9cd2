"""Environment variables and settings that are named after a provider."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.config import PATTERNS
from catlog_scrapy.declarations.spiders import base_url_variable
from catlog_scrapy.redaction import secret_variable
from catlog_scrapy.store.sql import rows


def unmatched_variables(
    engine: Engine, settings: BaseSettings, environment: Iterable[str] = os.environ
) -> list[str]:
    """Return a line for each name that no stored provider reads: a typing mistake, probably.

    Not an error: the environment may be shared with projects of another database.
    """
    prefixes = tuple(pattern.prefix for pattern in PATTERNS)
    names = {name for name in (*settings, *environment) if name.startswith(prefixes)}
    if not names:
        return []
    known: set[str] = set()
    with engine.connect() as connection:
        for provider in rows(connection, "SELECT name, secrets FROM catlog.provider"):
            known.add(base_url_variable(provider["name"]))
            known |= {secret_variable(provider["name"], name) for name in provider["secrets"]}
    lines = []
    for name in sorted(names - known):
        close = get_close_matches(name, known, n=1, cutoff=0.8)
        remedy = f"did you mean {close[0]}?" if close else "correct the name, or unset it"
        lines.append(f"{name} does not match a declared provider or secret; {remedy}")
    return lines
