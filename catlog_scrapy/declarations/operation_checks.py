"""Checks of a scheme's operations: names in `operations`, and `[[scheme.operation]]` tables."""

from collections.abc import Iterable, Sequence

from scrapy import Spider

from catlog_scrapy.declarations.check_context import ARGUMENTS_HINT, CheckContext
from catlog_scrapy.declarations.kinds import kind_definition
from catlog_scrapy.declarations.model import (
    KindTable,
    OperationTable,
    SchemeTable,
    format_value,
)
from catlog_scrapy.declarations.source import Location, suggest
from catlog_scrapy.declarations.spiders import has_only_start_requests, spider_arguments
from catlog_scrapy.records.lookup import is_record_type, make_record_type, record_types
from catlog_scrapy.records.record import RecordTypeError
from catlog_scrapy.scheduling.argument_templates import DUE_AT
from catlog_scrapy.scheduling.argument_urls import AllowedPlaces, url_mistakes
from catlog_scrapy.store.definitions import KindDefinition, OperationDefinition

# Fields that say how to run a spider: an external executor would ignore them.
SPIDER_ONLY_FIELDS = ("isolate", "refresh", "spider", "stall_timeout", "start_timeout")
# Fields that declare the only kind of items without a record type; `kinds` declares several.
KIND_FIELDS = ("kind", "key", "fields", "index", "unique", "untracked", "empty_is_null")
# An external executor counts neither requests nor dropped items.
SPIDER_ONLY_TOLERANCES = (
    "dropped",
    "failed_requests",
    "blocked_by_robots",
    "truncated",
    "without_length",
    "unreachable_robots",
)


def check_operations(
    context: CheckContext, location: Location, scheme: SchemeTable
) -> list[OperationDefinition]:
    """Check the operations of a scheme and build their definitions."""
    named = [
        ((*location, "operations", index), OperationTable(name=name))
        for index, name in enumerate(scheme.operations)
    ]
    tables = [
        ((*location, "operation", index), operation)
        for index, operation in enumerate(scheme.operation)
    ]
    definitions: dict[str, OperationDefinition] = {}
    for place, operation in named + tables:
        if operation.name in definitions:
            context.add_mistake(
                place, "the scheme has two operations of this name; rename one of the two"
            )
        definitions[operation.name] = _check_operation(context, place, operation)
    return list(definitions.values())


def _check_operation(
    context: CheckContext, location: Location, operation: OperationTable
) -> OperationDefinition:
    spidercls = _find_spider(context, location, operation)
    kinds = _check_kinds(context, location, operation, spidercls)
    context.kinds.update({kind.name: kind for kind in kinds})
    for name, arguments in (
        ("arguments", operation.arguments),
        ("standalone_arguments", operation.standalone_arguments),
    ):
        context.check_not_secret((*location, name), arguments)
        _check_arguments(context, (*location, name), arguments, spidercls)
    _check_urls(context, (*location, "arguments"), operation)
    _check_overlap(context, location, operation, spidercls)
    _check_refresh(context, location, operation, kinds, spidercls)
    if operation.executor == "external":
        _check_external(context, location, operation)
    return OperationDefinition(
        name=operation.name,
        spider=operation.spider_name,
        executor=operation.executor,
        arguments=operation.arguments,
        for_each=operation.for_each,
        standalone_arguments=operation.standalone_arguments,
        hosts=operation.hosts,
        mode=operation.mode,
        kinds=tuple(sorted(kinds, key=lambda kind: kind.name)),
        isolate=operation.isolate,
        tags=operation.tags,
        tolerate=operation.tolerate.model_dump(exclude_none=True),
        min_results=operation.min_results,
        timeout=operation.timeout,
        start_timeout=operation.start_timeout,
        stall_timeout=operation.stall_timeout,
        backoff_base=operation.backoff.base,
        backoff_cap=operation.backoff.cap,
        keep=operation.keep,
        overlap=operation.overlap,
        refresh=operation.refresh.model_dump() if operation.refresh else None,
    )


def _find_spider(
    context: CheckContext, location: Location, operation: OperationTable
) -> type[Spider] | None:
    """Return the operation's spider class, or None for an external or unknown spider."""
    if operation.executor == "external":
        return None
    name, spiders = operation.spider_name, context.loader.list()
    place = (*location, "spider") if operation.spider else location
    if name not in spiders:
        context.add_mistake(place, f'unknown spider "{name}"; {suggest(name, spiders)}')
        return None
    spidercls = context.loader.load(name)
    if has_only_start_requests(spidercls):
        context.add_mistake(
            place,
            f'the spider "{name}" has start_requests(), which Scrapy 2.19 does not call;'
            " rename it to `async def start(self)`",
        )
    return spidercls


def _check_kinds(
    context: CheckContext,
    location: Location,
    operation: OperationTable,
    spidercls: type[Spider] | None,
) -> list[KindDefinition]:
    """Return the kinds of the spider's record types, or else the declared kinds."""
    spider = operation.spider_name
    own = record_types(spidercls) if spidercls else ()
    if not own:
        return _check_declared_kinds(context, location, operation, spidercls)
    declared = [name for name in (*KIND_FIELDS, "kinds") if getattr(operation, name)]
    if declared:
        context.add_mistake(
            location,
            f'the spider "{spider}" has its own record type; remove {", ".join(declared)}',
        )
    typed = [record for record in own if is_record_type(record)]
    if len(typed) < len(own):
        context.add_mistake(
            location,
            f'`record` of the spider "{spider}" is not a record type; derive the class from'
            " catlog_scrapy.records.Record",
        )
    return [kind_definition(record) for record in typed]


def _check_declared_kinds(
    context: CheckContext,
    location: Location,
    operation: OperationTable,
    spidercls: type[Spider] | None,
) -> list[KindDefinition]:
    """Return the kinds that `kind`, `key` and `fields`, or the tables `kinds`, declare."""
    if operation.kinds:
        surplus = [name for name in KIND_FIELDS if getattr(operation, name)]
        if surplus:
            context.add_mistake(
                location, f"kinds declares all kinds; remove {', '.join(surplus)}, or kinds"
            )
        _check_conditions(context, location, operation.kinds)
        places = [((*location, "kinds", n), table) for n, table in enumerate(operation.kinds)]
        found = [_check_declared_kind(context, place, table) for place, table in places]
        return [kind for kind in found if kind]
    if operation.kind is not None and operation.key is not None:
        given = {name: getattr(operation, name) for name in KIND_FIELDS}
        kind = _check_declared_kind(context, location, KindTable(**given))
        return [kind] if kind else []
    if operation.executor == "external":
        context.add_mistake(
            location,
            "an external executor needs a declared kind; add kind, key and, for typed columns,"
            " fields",
        )
    elif spidercls:
        context.add_mistake(
            location,
            f'the spider "{operation.spider_name}" has no record type; add `record` to the spider,'
            " or kind and key to the operation",
        )
    return []


def _check_declared_kind(
    context: CheckContext, location: Location, table: KindTable
) -> KindDefinition | None:
    """Return the kind of a declaration, or None if it has a mistake."""
    for name in table.key:
        if name not in table.fields:
            context.add_note(
                location,
                f'the type of the key field "{name}" is not declared, so it is text, and 7 and 7.0'
                f' are two records; add {name} = "text", or another type, to fields',
            )
    try:
        made = make_record_type(
            table.kind,
            table.key,
            table.fields,
            index=table.index,
            unique=table.unique,
            untracked=table.untracked,
            rules=table.rules(),
        )
    except RecordTypeError as error:
        context.add_mistake(location, str(error))
        return None
    return kind_definition(made, foreign=True)


def _check_conditions(
    context: CheckContext, location: Location, kinds: Sequence[KindTable]
) -> None:
    """Check that no two kinds take the same items."""
    for number, table in enumerate(kinds):
        has_condition = bool(table.item or table.when)
        for other in kinds[:number]:
            is_same = (table.item, table.when) == (other.item, other.when) and (
                has_condition or set(table.key) == set(other.key)
            )
            if is_same:
                context.add_mistake(
                    (*location, "kinds", number),
                    f'the kinds "{other.kind}" and "{table.kind}" take the same items; tell them'
                    ' apart by when = { field = "value" } or item = "ItemClass"',
                )


def _check_arguments(
    context: CheckContext,
    location: Location,
    arguments: Iterable[str],
    spidercls: type[Spider] | None,
) -> None:
    if spidercls is None:
        return
    known = spider_arguments(spidercls)
    for name in arguments:
        if name not in known:
            context.add_mistake(
                (*location, name),
                f'unknown argument "{name}" of the spider "{spidercls.name}";'
                f" {suggest(name, known)} {ARGUMENTS_HINT}",
            )


def _check_urls(context: CheckContext, location: Location, operation: OperationTable) -> None:
    """Check that the arguments' URLs lie below base_url, or on a host in `hosts`.

    A template that begins with a placeholder is known only when it is rendered.
    """
    places = AllowedPlaces.of([context.file.provider.base_url], operation.hosts)
    for name, mistake in url_mistakes(places, operation.arguments).items():
        context.add_mistake((*location, name), mistake)


def _check_overlap(
    context: CheckContext,
    location: Location,
    operation: OperationTable,
    spidercls: type[Spider] | None,
) -> None:
    """Check that an operation with `overlap` reads from a cursor."""
    if operation.overlap is None:
        return
    place = (*location, "overlap")
    if operation.mode != "incremental":
        context.add_mistake(place, 'overlap needs a cursor; write mode = "incremental"')
    elif spidercls and "cursor" not in spider_arguments(spidercls):
        spider = operation.spider_name
        context.add_mistake(
            place, f'overlap needs a cursor; add `cursor = ""` to the spider "{spider}"'
        )


def _check_refresh(
    context: CheckContext,
    location: Location,
    operation: OperationTable,
    kinds: Sequence[KindDefinition],
    spidercls: type[Spider] | None,
) -> None:
    """Check that an operation with `refresh` has a spider that skips fresh records."""
    if operation.refresh is None:
        return
    place, spider, by = (*location, "refresh"), operation.spider_name, operation.refresh.by
    fields = [name for kind in kinds for name, _ in kind.fields]
    if len(kinds) > 1:
        context.add_mistake(
            place,
            f'refresh needs a spider with one record type, and "{spider}" has {len(kinds)};'
            " remove refresh",
        )
    elif fields and by not in fields:
        context.add_mistake((*place, "by"), f'unknown field "{by}"; {suggest(by, fields)}')
    if spidercls and not hasattr(spidercls, "fresh"):
        context.add_mistake(
            place,
            "refresh needs a spider that skips fresh records; add `fresh = {}` to the spider"
            f' "{spider}"',
        )


def _check_external(context: CheckContext, location: Location, operation: OperationTable) -> None:
    """Check that an external operation has no field that only a spider obeys."""
    for name in SPIDER_ONLY_FIELDS:
        if name in operation.model_fields_set:
            context.add_mistake(
                (*location, name), f"{name} has no effect on an external executor; remove it"
            )
    for name in SPIDER_ONLY_TOLERANCES:
        if name in operation.tolerate.model_fields_set:
            context.add_mistake(
                (*location, "tolerate", name),
                f"{name} has no effect on an external executor, which reports failures itself;"
                " remove it",
            )


def check_operation_templates(context: CheckContext) -> None:
    """Check the argument templates of all operations, once the file's kinds are known."""
    for index, scheme in enumerate(context.file.scheme):
        for number, operation in enumerate(scheme.operation):
            _check_templates(context, ("scheme", index, "operation", number), operation)


def _check_templates(context: CheckContext, location: Location, operation: OperationTable) -> None:
    standalone = (*location, "standalone_arguments")
    fields = {DUE_AT: DUE_AT}
    if operation.for_each:
        fields["part"] = "text"
    elif operation.standalone_arguments:
        context.add_mistake(
            standalone,
            "standalone_arguments needs for_each; add for_each, or remove standalone_arguments",
        )
    if isinstance(operation.for_each, str):
        kind = context.kinds.get(operation.for_each)
        if kind is None:
            context.add_mistake(
                (*location, "for_each"),
                f'no operation of this provider writes the kind "{operation.for_each}";'
                f" {suggest(operation.for_each, context.kinds)}",
            )
            return
        # `part` and `due_at` hide fields of these names, as they do when a load renders arguments.
        fields = {**dict(kind.fields), **fields}
    for name in operation.standalone_arguments:
        if name in fields:
            context.add_mistake(
                standalone,
                f'"{name}" already selects parts of a load; name an argument that is not a field'
                f" of {format_value(operation.for_each)}",
            )
    context.check_templates((*location, "arguments"), operation.arguments, fields)
