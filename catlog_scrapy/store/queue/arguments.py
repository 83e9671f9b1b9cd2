"""Validation of a load's arguments."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.redaction import secret_hint
from catlog_scrapy.store.queue.instances import CannotLoad, require_renderable
from catlog_scrapy.store.sql import one


def check_arguments(
    connection: Connection, provider_id: UUID, arguments: Mapping[str, str]
) -> None:
    """Raise NotPossible for a secret of the provider, or a template that cannot be rendered."""
    refuse_secrets(connection, provider_id, arguments)
    try:
        require_renderable(arguments)
    except CannotLoad as error:
        raise NotPossible(f"{error}.") from error


def refuse_secrets(connection: Connection, provider_id: UUID, arguments: Mapping[str, str]) -> None:
    """Raise NotPossible for a secret of the provider: secrets come from the environment only."""
    if not arguments:
        return
    provider = one(
        connection, "SELECT name, secrets FROM catlog.provider WHERE id = :id", id=provider_id
    )
    for name in set(provider["secrets"]).intersection(arguments):
        told = secret_hint(provider["name"], name)
        raise NotPossible(f"the argument {name!r} {told}; leave it out here.")
