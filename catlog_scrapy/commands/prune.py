"""`scrapy prune`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.store.maintenance.prune_counting import count_prunable
from catlog_scrapy.worker.attempt_logs import logs_to_delete
from catlog_scrapy.worker.pruning import retention_of


class Command(CatlogCommand):
    """Delete old results, versions, catalogs and logs at once.

    The scheduler does so by itself, in small steps. An operation's `keep`, CATLOG_RESULTS_KEEP and
    CATLOG_CATALOGS_KEEP say what is old; of logs, only those of this machine are deleted.
    """

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="only count what would be deleted"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        retention = retention_of(self.project_settings)
        with self.database() as engine:
            pruned = (count_prunable if opts.dry_run else prune)(engine, retention)
        logs = logs_to_delete(self.project_settings)
        if not opts.dry_run:
            for log in logs:
                log.unlink(missing_ok=True)
        counts = (
            counted(pruned.results, "result"),
            counted(pruned.unfinished, "result") + " of attempts that were not completed",
            counted(pruned.rejected, "rejected item"),
            counted(pruned.versions, "version"),
            counted(pruned.catalogs, "catalog"),
            counted(len(logs), "log"),
            f"{pruned.access} expired tokens and saved responses",
        )
        verb = "would delete" if opts.dry_run else "deleted"
        self.console.print(f"{verb}: {', '.join(counts)}")
