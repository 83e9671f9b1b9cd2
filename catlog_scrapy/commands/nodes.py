"""`scrapy nodes`."""

import argparse
from collections.abc import Mapping
from typing import Any

import orjson
from rich.table import Table

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.store.queue.nodes import list_nodes

COLOURS = {"up": "green", "draining": "yellow", "stopped": "", "silent": "red"}


class Command(CatlogCommand):
    """List the nodes of the fleet with slots, load and errors."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database() as engine:
            found = list_nodes(engine)
        if opts.json:
            text = orjson.dumps([dict(node) for node in found], option=orjson.OPT_INDENT_2)
            self.console.print(text.decode(), markup=False, soft_wrap=True)
            return
        if not found:
            self.console.print("no nodes yet; start scrapyd on this or another machine")
            return
        table = Table("node", "state", "running", "catlog", "projects", "polled", "page", box=None)
        for node in found:
            colour = COLOURS[node["state"]]
            table.add_row(
                node["name"],
                f"[{colour}]{node['state']}[/]" if colour else node["state"],
                f"{node['running']}/{node['slots']}",
                node["version"],
                ", ".join(_project(name, of) for name, of in node["projects"].items()),
                f"{node['silence']:.0f} s ago",
                node["url"],
            )
        self.console.print(table)
        for node in found:
            if node["error"]:
                at = node["error_at"].astimezone().isoformat(sep=" ", timespec="seconds")
                line = f"{node['name']} at {at}: {node['error']}"
                self.console.print(line, markup=False, soft_wrap=True)


def _project(name: str, of: Mapping[str, Any]) -> str:
    shown = of.get("project") or name
    what = of.get("error") or of.get("version")
    return f"{shown} ({what})" if what else shown
