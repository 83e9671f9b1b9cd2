"""`scrapy prune`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.worker.attempt_logs import logs_to_delete


class Command(CatlogCommand):
    """Delete old results, rejected items, versions and logs.

    An operation's `keep` says what is old; of logs, only those of this machine are deleted.
    """

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="only count what would be deleted"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database() as engine:
            pruned = prune(engine, dry_run=opts.dry_run)
        logs = logs_to_delete(self.project_settings)
        if not opts.dry_run:
            for log in logs:
                log.unlink(missing_ok=True)
        counts = (
            counted(pruned.results, "result"),
            counted(pruned.unfinished, "result") + " of attempts that were not completed",
            counted(pruned.rejected, "rejected item"),
            counted(pruned.versions, "version"),
            counted(len(logs), "log"),
            f"{pruned.access} expired tokens and saved responses",
        )
        verb = "would delete" if opts.dry_run else "deleted"
        self.console.print(f"{verb}: {', '.join(counts)}")
