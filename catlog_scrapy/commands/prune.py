"""`scrapy prune`"""

import argparse

from catlog_scrapy.command import CatlogCommand
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.worker.attempt_logs import logs_to_delete


class Command(CatlogCommand):
    """Deletes what is older than its operation's `keep`, and old logs of this machine."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database() as engine:
            pruned = prune(engine, dry_run=opts.dry_run)
        logs = logs_to_delete(self.project_settings)
        if not opts.dry_run:
            for log in logs:
                log.unlink(missing_ok=True)
        verb = "would go" if opts.dry_run else "deleted"
        self.console.print(
            f"{verb}: {pruned.results} results, {pruned.losers} results of attempts that lost,"
            f" {pruned.rejected} rejected items, {pruned.versions} versions, {len(logs)} logs,"
            f" {pruned.access} tokens and answers to requests that no longer count"
        )
