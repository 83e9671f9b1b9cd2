"""`scrapy prune`"""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.worker.attempt_logs import logs_to_delete


class Command(CatlogCommand):
    """Delete old results, rejected items, versions and logs.

    An operation's `keep` says what is old; of logs, only those of this machine are deleted.
    """

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
            f"{verb}: {pruned.results} results, {pruned.unfinished} results of attempts that lost,"
            f" {pruned.rejected} rejected items, {pruned.versions} versions, {len(logs)} logs,"
            f" {pruned.access} tokens and answers to requests that no longer count"
        )
