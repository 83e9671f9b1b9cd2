"""Checks of the `[[scheme]]` tables."""

from catlog_scrapy.declarations.check_context import CheckContext
from catlog_scrapy.declarations.model import SchemeTable
from catlog_scrapy.declarations.operation_checks import check_operations
from catlog_scrapy.declarations.source import Location
from catlog_scrapy.store.definitions import SchemeDefinition


def check_schemes(context: CheckContext) -> list[SchemeDefinition]:
    """Check the file's schemes with their operations and build their definitions."""
    _check_unique_names(context)
    operations = [
        check_operations(context, ("scheme", index), scheme)
        for index, scheme in enumerate(context.file.scheme)
    ]
    for index, scheme in enumerate(context.file.scheme):
        _check_references(context, ("scheme", index), scheme)
    return [
        SchemeDefinition(
            name=scheme.name,
            version=scheme.version,
            max_errors=scheme.max_errors,
            includes=tuple(scheme.includes),
            after=scheme.after,
            operations=tuple(sorted(found, key=lambda operation: operation.name)),
        )
        for scheme, found in zip(context.file.scheme, operations, strict=True)
    ]


def _check_unique_names(context: CheckContext) -> None:
    seen: set[str] = set()
    for index, scheme in enumerate(context.file.scheme):
        if scheme.name in seen:
            context.add_mistake(
                ("scheme", index),
                "the file has two schemes of this name; keep the newest version, the database"
                " keeps earlier versions",
            )
        seen.add(scheme.name)


def _check_references(context: CheckContext, location: Location, scheme: SchemeTable) -> None:
    """Check `operations`, `includes` and `after`."""
    includes, after = (*location, "includes"), (*location, "after")
    has_operations = bool(scheme.operations or scheme.operation)
    if has_operations and scheme.includes:
        context.add_mistake(
            location,
            "a scheme has either operations or includes; move the operations to an included scheme",
        )
    if not has_operations and not scheme.includes:
        context.add_mistake(
            location, "the scheme has neither operations nor includes; name spiders in operations"
        )
    for name in dict.fromkeys(scheme.includes):
        context.check_scheme_name(includes, name)
        if scheme.includes.count(name) > 1:
            context.add_mistake(includes, f'"{name}" is listed twice; remove one of the two')
    if scheme.name in _included_schemes(context, scheme.name):
        context.add_mistake(
            includes, f'"{scheme.name}" includes itself through other schemes; break the cycle'
        )
    if scheme.after:
        context.check_scheme_name(after, scheme.after)
        if scheme.after == scheme.name:
            context.add_mistake(after, "a scheme cannot run after itself; name another scheme")


def _included_schemes(context: CheckContext, name: str) -> set[str]:
    """Return all schemes that the scheme *name* includes, directly or not."""
    found: set[str] = set()
    ahead = list(context.schemes[name].includes)
    while ahead:
        following = ahead.pop()
        if following not in found and following in context.schemes:
            found.add(following)
            ahead += context.schemes[following].includes
    return found
