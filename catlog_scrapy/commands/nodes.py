"""`scrapy nodes`."""

import argparse
from collections.abc import Mapping
from typing import Any

import orjson
from rich.markup import escape
from rich.table import Table

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.console import moment, print_text
from catlog_scrapy.plurals import counted, duration
from catlog_scrapy.store.queue.nodes import list_nodes
from catlog_scrapy.store.reading.waiting import waiting_work

COLOURS = {"up": "green", "draining": "yellow", "stopped": "", "silent": "red"}


class Command(CatlogCommand):
    """List the nodes of the fleet with slots, load and errors."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database() as engine:
            found = list_nodes(engine)
            waiting = waiting_work(engine)
        if opts.json:
            text = orjson.dumps([dict(node) for node in found], option=orjson.OPT_INDENT_2)
            self.console.print(text.decode(), markup=False, soft_wrap=True)
            return
        if not found:
            self.console.print("no nodes yet; start scrapyd on this or another machine")
        else:
            self._nodes(found)
        for work in waiting:
            self._waiting(work)

    def _nodes(self, found: list[Mapping[str, Any]]) -> None:
        has_tags = any(node["tags"] for node in found)
        table = Table(box=None, pad_edge=False)
        table.add_column("node and page", overflow="fold", ratio=2)
        for name in ("state", "slots", *(("tags",) if has_tags else ()), "catlog"):
            table.add_column(name, overflow="fold")
        table.add_column("projects", overflow="fold", ratio=1)
        table.add_column("polled", no_wrap=True)
        for node in found:
            colour = COLOURS[node["state"]]
            table.add_row(
                f"{escape(node['name'])}\n{escape(node['url'])}",
                f"[{colour}]{node['state']}[/]" if colour else node["state"],
                f"{node['running']}/{node['slots']}",
                *([", ".join(node["tags"])] if has_tags else []),
                node["version"],
                escape(", ".join(_project(name, of) for name, of in node["projects"].items())),
                f"{duration(node['silence'])} ago",
            )
        self.console.print(table)
        for node in found:
            if node["error"]:
                line = f"{node['name']} at {moment(node['error_at'])}: {node['error']}"
                print_text(self.console, line)

    def _waiting(self, work: Mapping[str, Any]) -> None:
        tags = f" with the tags {', '.join(work['tags'])}" if work["tags"] else ""
        reason = f"; waits: {work['reason']}" if work["reason"] else ""
        count = counted(work["instances"], "instance")
        line = f"{work['provider']}: {count}{tags} in the queue{reason}"
        print_text(self.console, line)


def _project(name: str, of: Mapping[str, Any]) -> str:
    shown = of.get("project") or name
    what = of.get("error") or of.get("version")
    return f"{shown} ({what})" if what else shown
