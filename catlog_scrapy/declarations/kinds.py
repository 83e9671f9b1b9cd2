"""Kinds of all providers together: their views share the schema `public`."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from catlog_scrapy.records.record import Record
from catlog_scrapy.store.definitions import (
    VERSIONS_SUFFIX,
    KindDefinition,
    ProviderDefinition,
)
from catlog_scrapy.store.views.naming import HISTORY_SUFFIX, MAX_KIND_BYTES

# Columns that the views add; `data` only for a kind without a record type.
VIEW_COLUMNS = ("created_at", "updated_at", "valid_from", "valid_to", "change")


class OperationPath(NamedTuple):
    """Names that lead to an operation; without `operation`, to a scheme."""

    provider: str
    scheme: str
    operation: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, self))


# Formats the line of a mistake, given its operation and message.
MistakeFormatter = Callable[[OperationPath, str], str]


def kind_definition(record: type[Record], *, foreign: bool = False) -> KindDefinition:
    """Return the definition of a record type, as the database stores it."""
    return KindDefinition(
        name=record.kind,
        key=record.key_fields,
        fields=tuple((part["name"], part["type"]) for part in record.sql_fields()),
        foreign=foreign,
        indexes=record.index_fields,
        unique=record.unique_fields,
        untracked=record.untracked_fields,
        rules=record.item_rules,
    )


def kind_writers(
    providers: Iterable[ProviderDefinition],
) -> Iterator[tuple[KindDefinition, OperationPath]]:
    """Yield every kind with the operation that writes it."""
    for provider in providers:
        for scheme in provider.schemes:
            for operation in scheme.operations:
                for kind in operation.kinds:
                    yield kind, OperationPath(provider.name, scheme.name, operation.name)


def check_kinds(
    providers: Iterable[ProviderDefinition], views: set[str], format_mistake: MistakeFormatter
) -> Iterator[str]:
    """Yield a line for each mistake; *views* are the names of the project's own views."""
    first: dict[str, tuple[KindDefinition, OperationPath]] = {}
    for kind, writer in kind_writers(providers):
        known, other = first.setdefault(kind.name, (kind, writer))
        if known != kind or known.untracked != kind.untracked:
            yield format_mistake(
                writer,
                f'the kind "{kind.name}" differs from the kind of this name that {other} writes;'
                " share one record type, or give one of them another view",
            )
    for name, (kind, writer) in first.items():
        for message in _kind_mistakes(kind, views):
            yield format_mistake(writer, f'the kind "{name}" {message}')
        history = name + HISTORY_SUFFIX
        if history in first:
            yield format_mistake(
                writer,
                f'the history view "{history}" of the kind "{name}" has the name of a kind that'
                f" {first[history][1]} writes; rename one of the kinds",
            )
        versions = name + VERSIONS_SUFFIX
        if versions in first:
            yield format_mistake(
                writer,
                f'the table of versions "{versions}" of the kind "{name}" has the name of a kind'
                f" that {first[versions][1]} writes; rename one of the kinds",
            )


def _kind_mistakes(kind: KindDefinition, views: set[str]) -> Iterator[str]:
    if len(kind.name) > MAX_KIND_BYTES:
        yield (
            f"has a name of {len(kind.name)} bytes; use a view name of at most"
            f" {MAX_KIND_BYTES} bytes"
        )
    for column in (*VIEW_COLUMNS, *(("data",) if kind.foreign else ())):
        if column in dict(kind.fields):
            yield f'has a field "{column}", which is a column of its view; rename the field'
    for view in (kind.name, kind.name + HISTORY_SUFFIX):
        if view in views:
            yield (
                f'makes the view "{view}", and so does the project\'s file {view}.sql;'
                " rename one of the views"
            )
