"""`scrapy user`."""

import argparse
import sys
from getpass import getpass

from rich.markup import escape
from rich.table import Table
from scrapy.exceptions import UsageError
from sqlalchemy import Engine

from catlog_scrapy.api.auth.passwords import MAX_PASSWORD_BYTES, Passwords
from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.console import moment
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.models.access import ROLES
from catlog_scrapy.store.access import users
from catlog_scrapy.store.access.audit import COMMAND_LINE, record_audit
from catlog_scrapy.store.sql import Transaction, transaction

VERBS = ("add", "password", "role", "disable", "enable", "remove")
DONE = {
    "add": "added",
    "password": "has a new password",
    "role": "has another role",
    "disable": "disabled",
    "enable": "enabled",
    "remove": "removed",
}


class Command(CatlogCommand):
    """Add, list and change the users of the HTTP API.

    `add` and `password` ask for a password, or read a line from standard input.
    """

    def syntax(self) -> str:
        return "[options] list | add|password|role|disable|enable|remove NAME"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--role", choices=ROLES, help="role of the user")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if args == ["list"]:
            with self.database() as engine:
                self._list(engine)
            return
        if len(args) != 2 or args[0] not in VERBS:
            raise UsageError(f"write list, or {', '.join(VERBS[:-1])} or {VERBS[-1]} with a NAME")
        verb, name = args
        if (verb in ("add", "role")) != (opts.role is not None):
            raise UsageError("use --role ROLE with add and role, and only there")
        users.check_name(name)
        hashed = Passwords().hash(_password()) if verb in ("add", "password") else ""
        with self.database() as engine, transaction(engine) as tx:
            self._do(tx, verb, name, opts.role, hashed)
            record_audit(
                tx,
                actor=COMMAND_LINE,
                action=f"users:{verb}",
                target=f"user:{name}",
                detail={"role": opts.role} if opts.role else {},
            )
        self.console.print(f"{name} {DONE[verb]}", markup=False)

    @staticmethod
    def _do(transaction: Transaction, verb: str, name: str, role: str, hashed: str) -> None:
        match verb:
            case "add":
                users.add_user(transaction, name, role, hashed)
            case "password":
                users.set_password(transaction, name, hashed)
            case "role":
                users.set_role(transaction, name, role)
            case "disable":
                users.disable_user(transaction, name)
            case "enable":
                users.enable_user(transaction, name)
            case _:
                users.remove_user(transaction, name)

    def _list(self, engine: Engine) -> None:
        table = Table("user", "role", "state", "since", box=None)
        for user in users.users(engine):
            table.add_row(
                escape(user["name"]),
                user["role"],
                "enabled" if user["enabled"] else "[red]disabled[/]",
                moment(user["created_at"]),
            )
        self.console.print(table)


def _password() -> str:
    """Ask for a password twice, or read it from standard input. Raises NotPossible."""
    if sys.stdin is None:
        raise NotPossible("standard input is closed; write the password to it")
    if sys.stdin.isatty():
        password = getpass("password: ")
        if getpass("once more: ") != password:
            raise NotPossible("the two passwords differ; type the same password twice")
        return password
    try:
        return sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 3).decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise NotPossible("the password on standard input is not valid UTF-8") from error
