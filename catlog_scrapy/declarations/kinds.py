"""The kinds of all providers taken together: their views share the schema `public`."""

from collections.abc import Callable, Iterable, Iterator

from catlog_scrapy.records.record import Record
from catlog_scrapy.store.definitions import KindDefinition, ProviderDefinition
from catlog_scrapy.store.views.naming import HISTORY_SUFFIX, MAX_KIND_BYTES

# Columns that the views add; `data` only to a kind without a record type.
VIEW_COLUMNS = ("created_at", "updated_at", "valid_from", "valid_to", "change")
# Their tables would be called as ours are.
TAKEN = ("version",)

# Makes the line of a mistake: provider, scheme, operation, what is wrong and the remedy.
MistakeFormatter = Callable[[str, str, str, str], str]
Writer = tuple[str, str, str]


def kind_definition(record: type[Record], *, foreign: bool = False) -> KindDefinition:
    """What the database is to know of a record type."""
    return KindDefinition(
        name=record.kind,
        key=record.key_fields,
        fields=tuple((part["name"], part["type"]) for part in record.sql_fields()),
        foreign=foreign,
    )


def kind_writers(
    providers: Iterable[ProviderDefinition],
) -> Iterator[tuple[KindDefinition, Writer]]:
    """Every kind with the provider, scheme and operation that writes it."""
    for provider in providers:
        for scheme in provider.schemes:
            for operation in scheme.operations:
                for kind in operation.kinds:
                    yield kind, (provider.name, scheme.name, operation.name)


def check_kinds(
    providers: Iterable[ProviderDefinition], views: set[str], format_mistake: MistakeFormatter
) -> Iterator[str]:
    """The lines of what is wrong; *views* are the names of the project's own."""
    first: dict[str, tuple[KindDefinition, Writer]] = {}
    for kind, writer in kind_writers(providers):
        known, other = first.setdefault(kind.name, (kind, writer))
        if known != kind:
            yield format_mistake(
                *writer,
                f'defines the kind "{kind.name}" differently from {"/".join(other)}; share one'
                " record type, or give one of them another view",
            )
    for name, (kind, writer) in first.items():
        for what in _of_one(kind, views):
            yield format_mistake(*writer, f'the kind "{name}" {what}')
        if name + HISTORY_SUFFIX in first:
            place = "/".join(first[name + HISTORY_SUFFIX][1])
            yield format_mistake(
                *writer,
                f'the kind "{name}" has its history in the view "{name + HISTORY_SUFFIX}", which is'
                f" a kind of {place}; rename one of them",
            )


def _of_one(kind: KindDefinition, views: set[str]) -> Iterator[str]:
    if len(kind.name) > MAX_KIND_BYTES:
        yield (
            f"has a name of {len(kind.name)} letters, and {MAX_KIND_BYTES} is the limit;"
            " shorten the view's name"
        )
    if kind.name in TAKEN:
        yield "has a name that catlog needs itself; choose another view"
    for column in (*VIEW_COLUMNS, *(("data",) if kind.foreign else ())):
        if column in dict(kind.fields):
            yield f'has a field "{column}", which is a column of its view; rename the field'
    for view in (kind.name, kind.name + HISTORY_SUFFIX):
        if view in views:
            yield (
                f'makes the view "{view}", but there is a file {view}.sql among the views;'
                " rename one of them"
            )
