"""`scrapy status`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.console import moment, print_text, short_moment
from catlog_scrapy.plurals import counted, duration
from catlog_scrapy.store.reading.status import (
    attempts_of,
    find_catalog,
    latest_catalogs,
    rejected_of,
)

if TYPE_CHECKING:
    from catlog_scrapy.store.sql import Readable

# A backslash, or characters that JSON writes in ASCII; two escapes make a character beyond U+FFFF.
ESCAPED = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u(?!d[89a-f])[0-9a-f]{4}")


class Command(CatlogCommand):
    """List catalogs, or show one with attempts, errors and logs.

    Both say what open catalogs wait for. A catalog's instances, rejected items and counts are shown
    too.
    """

    def syntax(self) -> str:
        return "[options] [CATALOG]"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--failed",
            action="store_true",
            help="only failed catalogs, or only failed attempts of the catalog",
        )
        parser.add_argument(
            "--provider",
            metavar="NAME",
            help="only catalogs of a provider, or of a scheme as PROVIDER/SCHEME",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) > 1:
            raise UsageError("write at most one catalog id, or its first characters")
        if args and opts.provider:
            raise UsageError("--provider restricts the list; leave it out, or the catalog")
        provider, _, scheme = (opts.provider or "").partition("/")
        with self.readable_database() as database:
            if args:
                self._catalog(database, args[0], opts)
                return
            found = latest_catalogs(
                database, failed=opts.failed, provider=provider or None, scheme=scheme or None
            )
            self._catalogs(found, opts)

    def _catalogs(self, catalogs: list[Mapping[str, Any]], opts: argparse.Namespace) -> None:
        if opts.json:
            self._json([dict(catalog) for catalog in catalogs])
            return
        from rich.table import Table

        table = Table("catalog", box=None, pad_edge=False)
        table.add_column("scheme", overflow="fold")
        for name in ("state", "done", "errors", "changes", "at", "took"):
            table.add_column(name, no_wrap=True)
        for catalog in catalogs:
            table.add_row(
                str(catalog["id"])[:8],
                f"{catalog['scheme']} {catalog['version']}",
                catalog["state"],
                f"{catalog['done']}/{catalog['instances']}",
                str(catalog["errors"] or ""),
                changes(catalog["published"]),
                short_moment(catalog["due_at"] or catalog["created_at"]),
                duration(catalog["seconds"]) if catalog["seconds"] is not None else "",
            )
        self.console.print(table, markup=False)
        for catalog in catalogs:
            if catalog["waits"]:
                self._say(f"{str(catalog['id'])[:8]} waits: {catalog['waits']}")

    def _catalog(self, database: Readable, prefix: str, opts: argparse.Namespace) -> None:
        catalog = find_catalog(database, prefix)
        attempts = attempts_of(database, catalog["id"], failed=opts.failed)
        rejected = rejected_of(database, catalog["id"])
        if opts.json:
            self._json(
                {
                    **catalog,
                    "attempts": [dict(attempt) for attempt in attempts],
                    "rejected": [dict(item) for item in rejected],
                }
            )
            return
        self._say(f"catalog {catalog['id']}: {catalog['scheme']} {catalog['version']}")
        if catalog["job"]:
            self._say(f"job {catalog['job']}")
        took = f", {duration(catalog['seconds'])}" if catalog["seconds"] is not None else ""
        self._say(f"{catalog['state']}, {catalog['done']} of {catalog['instances']} done{took}")
        if catalog["waits"]:
            self._say(f"waits: {catalog['waits']}")
        is_repeated = (catalog["first_error"] or "") in (catalog["error"] or "")
        if not is_repeated and catalog["state"] != "loaded":
            self._say(f"first error: {catalog['first_error']}")
        if catalog["error"]:
            self._say(catalog["error"])
        if catalog["published"]:
            self._say(", ".join(f"{n} {name}" for name, n in catalog["published"].items() if n))
        for attempt in attempts:
            self._attempt(attempt)
        for item in rejected:
            self._say(f"rejected by {_title(item)} at {item['url']}:")
            self._say(f"  {'; '.join(item['errors'])}: {readable(item['data'])}")

    def _attempt(self, attempt: Mapping[str, Any]) -> None:
        title = _title(attempt)
        if attempt["attempt"] is None:
            waits = f", waits: {attempt['waits']}" if attempt["waits"] else ""
            self._say(f"{title}: {attempt['state']}{waits}")
            return
        outcome = attempt["outcome"] or "running"
        self._say(
            f"{title} attempt {attempt['attempt']}: {outcome} on {attempt['node']},"
            f" {duration(attempt['seconds'])}"
        )
        self._say(
            f"  at {moment(attempt['started_at'])}, {counted(attempt['accepted'], 'result')},"
            f" {attempt['rejected']} rejected, {attempt['dropped']} dropped"
        )
        if attempt["read_to"]:
            self._say(
                f"  read from {attempt['read_from'] or 'the beginning'} to {attempt['read_to']}"
            )
        if attempt["error"]:
            self._say(f"  {attempt['error']}")
        if attempt["log"]:
            self._say(f"  log: {attempt['log']}")
        if attempt["waits"]:
            self._say(f"  waits: {attempt['waits']}")

    def _say(self, text: str) -> None:
        print_text(self.console, text)

    def _json(self, value: Any) -> None:
        options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
        text = orjson.dumps(value, default=dict, option=options).decode()
        self.console.print(text, markup=False, soft_wrap=True)


def readable(data: str) -> str:
    """Return the ASCII text of a rejected item with its printable characters decoded.

    The text may be cut, so it is not parsed as JSON. Control characters stay escaped.
    """

    def decode(escaped: re.Match[str]) -> str:
        text = str(orjson.loads(f'"{escaped[0]}"'))
        return text if text.isprintable() and text != "\\" else escaped[0]

    return ESCAPED.sub(decode, data)


def _title(instance: Mapping[str, Any]) -> str:
    """Return the operation of *instance*, with the part if there is one."""
    return f"{instance['operation']} {instance['part']}".rstrip()


def changes(published: Mapping[str, int] | None) -> str:
    """Return the counts of a publish in short: added, changed and removed records."""
    if published is None:
        return ""
    counts = {
        "+": published.get("created", 0) + published.get("restored", 0),
        "~": published.get("changed", 0),
        "-": published.get("removed", 0) + published.get("deleted", 0),
    }
    return " ".join(f"{sign}{count}" for sign, count in counts.items() if count) or "none"
