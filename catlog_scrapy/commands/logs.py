"""`scrapy logs`."""

from __future__ import annotations

import argparse
import base64
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.reading.status import attempts_of, catalog_tree, find_attempt, find_catalog

NODE_TIMEOUT_S = 20.0


class Command(CatlogCommand):
    """Print the logs of a catalog's attempts, or of one attempt.

    Sub-catalogs are included. A log on another machine comes from its node, over HTTP.
    """

    def syntax(self) -> str:
        return "[options] CATALOG|ATTEMPT"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--failed", action="store_true", help="only failed attempts of the catalog"
        )
        parser.add_argument(
            "--lines", type=int, metavar="N", help="only the last lines of each log"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        if len(args) != 1:
            raise UsageError(
                "write one catalog id, or its first characters, or one attempt as INSTANCE.NUMBER"
            )
        if opts.lines is not None and opts.lines < 1:
            raise UsageError(f"--lines is {opts.lines}; use a whole number above 0")
        with self.readable_database() as database:
            if "." in args[0]:
                attempts = [find_attempt(database, args[0].removesuffix(".log"))]
            else:
                catalog = find_catalog(database, args[0])
                attempts = [
                    attempt
                    for id_ in catalog_tree(database, catalog["id"])
                    for attempt in attempts_of(database, id_, failed=opts.failed)
                ]
        with_logs = [attempt for attempt in attempts if attempt["log"]]
        if not with_logs:
            raise NotPossible(f"no attempt of {args[0]} has a log; scrapy status shows them")
        missing = [self._print(attempt, opts) for attempt in with_logs]
        return 1 if any(missing) else 0

    def _print(self, attempt: Mapping[str, Any], opts: argparse.Namespace) -> bool:
        """Print a log below a heading; return whether the log is missing."""
        title = f"{attempt['operation']} {attempt['part']}".rstrip()
        outcome = attempt["outcome"] or "running"
        heading = f"==> {title} attempt {attempt['attempt']}: {outcome} on {attempt['node']} <=="
        sys.stdout.write(f"{heading}\n")
        try:
            lines = _read_log(attempt)
            for line in deque(lines, opts.lines) if opts.lines else lines:
                sys.stdout.write(line.decode("utf-8", "backslashreplace"))
        except NotPossible as error:
            sys.stdout.flush()
            self.print_error(str(error))
            return True
        return False


def _read_log(attempt: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the lines of an attempt's log, of this machine or its node. Raises NotPossible."""
    path = Path(attempt["log"])
    if path.is_file():
        with path.open("rb") as file:
            yield from file
        return
    if not attempt["node_url"]:
        raise NotPossible(
            f"{path} is not on this machine: read it on {attempt['node']}. It was pruned, or the"
            " attempt never began, if it is not there either"
        )
    url = f"{attempt['node_url']}/logs/{quote(path.name)}"
    try:
        with urlopen(_request(url), timeout=NODE_TIMEOUT_S) as response:
            yield from response
    except HTTPError as error:
        error.close()
        reason = {
            401: "it demands a password; set username and password of [scrapyd] in scrapy.cfg, or"
            " SCRAPYD_USERNAME and SCRAPYD_PASSWORD",
            404: "it does not have the log any more",
        }.get(error.code, f"it answers with status {error.code}")
        raise NotPossible(f"{url} cannot be read: {reason}") from error
    except (URLError, OSError) as error:
        cause = getattr(error, "reason", error)
        raise NotPossible(
            f"{url} cannot be read: {cause}; start the node {attempt['node']}, or read {path} there"
        ) from error


def _request(url: str) -> Request:
    """Return a request with the credentials of this project's nodes."""
    # Imported only here: most logs are files of this machine.
    from scrapyd.config import Config

    from catlog_scrapy.fleet.credentials import credentials

    username, password = credentials(Config())
    request = Request(url)
    if username and password:
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    return request
