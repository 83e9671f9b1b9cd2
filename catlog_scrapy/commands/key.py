"""`scrapy key`."""

import argparse
import sys
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from scrapy.exceptions import UsageError
from sqlalchemy import Engine

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.console import short_moment
from catlog_scrapy.declarations.model import duration
from catlog_scrapy.declarations.resources import read_resources
from catlog_scrapy.declarations.roles import PERMISSION, covers
from catlog_scrapy.models.access import ROLES
from catlog_scrapy.store.access import keys
from catlog_scrapy.store.access.audit import COMMAND_LINE, record_audit
from catlog_scrapy.store.sql import transaction

COLOURS = {"valid": "green", "expired": "yellow", "revoked": "red"}


class Command(CatlogCommand):
    """Add, list and revoke API keys of services.

    `add` prints the key on standard output once; the database stores only its hash.
    """

    def syntax(self) -> str:
        return "[options] list | add|revoke NAME"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--role", choices=ROLES, help="role of the key")
        parser.add_argument(
            "--scope",
            action="append",
            metavar="RESOURCE:ACTION",
            help="restrict the key to this permission of its role; may be repeated",
        )
        parser.add_argument(
            "--expires",
            metavar="DURATION",
            help='validity of the key, such as "90d"',
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        verb, *names = args or [""]
        if (verb, len(names)) not in (("list", 0), ("add", 1), ("revoke", 1)):
            raise UsageError("write list, add NAME or revoke NAME")
        if verb != "add" and (opts.role or opts.scope or opts.expires):
            raise UsageError("only add takes --role, --scope and --expires")
        if verb == "add":
            self._add(names[0], opts)
            return
        with self.database() as engine:
            if verb == "list":
                self._list(engine)
            else:
                self._revoke(engine, names[0])

    def _add(self, name: str, opts: argparse.Namespace) -> None:
        if opts.role is None:
            raise UsageError("add needs --role ROLE")
        self._check_scopes(opts.role, opts.scope or ())
        try:
            seconds = duration(opts.expires) if opts.expires else None
        except ValueError as error:
            raise UsageError(f"--expires {error}") from error
        with self.database() as engine, transaction(engine) as tx:
            key = keys.add_key(tx, name, opts.role, scopes=opts.scope, seconds=seconds)
            record_audit(
                tx,
                actor=COMMAND_LINE,
                action="keys:add",
                target=f"key:{name}",
                detail={"role": opts.role, "scopes": opts.scope, "expires": opts.expires},
            )
        self.console.print(key, markup=False, soft_wrap=True)
        print("save the key now: it is not shown again", file=sys.stderr)  # noqa: T201

    def _check_scopes(self, role: str, scopes: Sequence[str]) -> None:
        permissions = read_resources(self.project_settings).roles[role]
        for scope in scopes:
            if not PERMISSION.fullmatch(scope):
                raise UsageError(f'"{scope}" is not a RESOURCE:ACTION; use catalogs:read, say')
            if not covers(permissions, scope):
                raise UsageError(
                    f"the role {role} does not have {scope}; use another role or scope"
                )

    def _revoke(self, engine: Engine, name: str) -> None:
        with transaction(engine) as tx:
            keys.revoke_key(tx, name)
            record_audit(tx, actor=COMMAND_LINE, action="keys:revoke", target=f"key:{name}")
        self.console.print(f"{name} revoked", markup=False)

    def _list(self, engine: Engine) -> None:
        table = Table(box=None, pad_edge=False)
        for name in ("key and its begin", "role", "scopes"):
            table.add_column(name, overflow="fold")
        for name in ("last use", "expires", "state"):
            table.add_column(name, no_wrap=True)
        for key in keys.keys(engine):
            last, end = (
                short_moment(at) if at else "never"
                for at in (key["last_used_at"], key["expires_at"])
            )
            scopes = "all" if key["scopes"] is None else " ".join(key["scopes"])
            state = f"[{COLOURS[key['state']]}]{key['state']}[/]"
            name = f"{escape(key['name'])}\n{key['prefix']}"
            table.add_row(name, key["role"], scopes, last, end, state)
        self.console.print(table)
