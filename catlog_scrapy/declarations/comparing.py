"""Comparison of declared providers with stored ones: changes to make, and forbidden changes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from catlog_scrapy.declarations.kinds import MistakeFormatter, OperationPath, kind_writers
from catlog_scrapy.store.definitions import (
    KindDefinition,
    ProviderDefinition,
    ScheduleDefinition,
    SchemeDefinition,
)


@dataclass(frozen=True)
class Change:
    """Change that `scrapy apply` makes: `+` adds, `~` alters, `-` retires."""

    sign: str
    what: str

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"


def compare(
    declared: Sequence[ProviderDefinition],
    stored: Sequence[ProviderDefinition],
    project: str,
    format_mistake: MistakeFormatter,
) -> tuple[list[Change], list[str]]:
    """Return the changes that bring *stored* to *declared*, and a line for each forbidden change.

    Providers of other projects than *project* stay as they are.
    """
    changes: list[Change] = []
    refused: list[str] = []
    known = {provider.name: provider for provider in stored}
    for provider in declared:
        former = known.pop(provider.name, None)
        if former is None:
            changes.append(Change("+", f"provider {provider.name}"))
            former = replace(provider, schemes=(), schedules=())
        if former.project not in (None, project):
            refused.append(
                f'the provider "{provider.name}" belongs to the project "{former.project}";'
                f' rename the provider, or set CATLOG_PROJECT to "{former.project}"'
            )
        changes += _provider_changes(provider, former)
        refused += _scheme_mistakes(provider, former, format_mistake)
    for removed in known.values():
        is_foreign = removed.project not in (None, project)
        if not is_foreign and any(not scheme.retired for scheme in removed.schemes):
            changes.append(Change("-", f"provider {removed.name}: no file declares it"))
    refused += _kind_mistakes(declared, stored, format_mistake)
    return changes, refused


def _provider_changes(provider: ProviderDefinition, former: ProviderDefinition) -> Iterator[Change]:
    yield from _field_changes(
        f"provider {provider.name}",
        replace(provider, schemes=(), schedules=()),
        replace(former, schemes=(), schedules=()),
    )
    for scheme in provider.schemes:
        yield from _scheme_changes(provider.name, scheme, _versions(former, scheme.name))
    names = {scheme.name for scheme in provider.schemes}
    for scheme in former.schemes:
        if scheme.name not in names and not scheme.retired:
            yield Change("-", f"scheme {provider.name}/{scheme.name} {scheme.version}")
    yield from _schedule_changes(provider.name, provider.schedules, former.schedules)


def _versions(provider: ProviderDefinition, scheme: str) -> list[SchemeDefinition]:
    return [version for version in provider.schemes if version.name == scheme]


def _schedule_changes(
    provider: str, schedules: Iterable[ScheduleDefinition], former: Iterable[ScheduleDefinition]
) -> Iterator[Change]:
    remaining = {(schedule.scheme, schedule.name): schedule for schedule in former}
    for schedule in schedules:
        title = f"schedule {provider}/{schedule.scheme} {schedule.name!r}"
        known = remaining.pop((schedule.scheme, schedule.name), None)
        if known is None:
            yield Change("+", f"{title}: {schedule.cron} {schedule.timezone}")
        else:
            yield from _field_changes(title, schedule, known)
    for schedule in remaining.values():
        if schedule.enabled:
            title = f"schedule {provider}/{schedule.scheme} {schedule.name!r}"
            yield Change("-", f"{title}: disabled, its history stays")


def _scheme_changes(
    provider: str, scheme: SchemeDefinition, versions: Sequence[SchemeDefinition]
) -> Iterator[Change]:
    title = f"scheme {provider}/{scheme.name} {scheme.version}"
    former = next((version for version in versions if version.version == scheme.version), None)
    if former is None:
        yield Change("+", title)
        for version in versions:
            if not version.retired:
                yield Change("-", f"scheme {provider}/{scheme.name} {version.version}: retired")
        return
    if former.retired:
        yield Change("+", f"{title}: active again")
    yield from _field_changes(
        title,
        replace(scheme, operations=()),
        replace(former, operations=(), used=False, attempted=frozenset(), retired=False),
    )
    operations = {operation.name: operation for operation in former.operations}
    for operation in scheme.operations:
        known = operations.pop(operation.name, None)
        path = f"operation {provider}/{scheme.name}/{operation.name}"
        if known is None:
            yield Change("+", path)
        else:
            yield from _field_changes(path, operation, known)
    for name in operations:
        yield Change("-", f"operation {provider}/{scheme.name}/{name}")


def _field_changes(title: str, new: object, old: object) -> Iterator[Change]:
    """Yield a change for each field in which two dataclass instances differ."""
    for name, value in vars(new).items():
        before = getattr(old, name)
        if name == "kinds":
            yield from _kind_changes(title, value, before)
        elif value != before or _types(value) != _types(before):
            yield Change("~", f"{title}: {name} {_format(before)} -> {_format(value)}")


def _kind_changes(
    title: str, new: Sequence[KindDefinition], old: Sequence[KindDefinition]
) -> Iterator[Change]:
    """Yield the changes of an operation's kinds; equal kinds may differ in what is not frozen."""
    if new != old:
        yield Change("~", f"{title}: record types")
        return
    pairs = list(zip(new, old, strict=True))
    if any((kind.indexes, kind.unique) != (known.indexes, known.unique) for kind, known in pairs):
        yield Change("~", f"{title}: indexes")
    if any(kind.untracked != known.untracked for kind, known in pairs):
        yield Change("~", f"{title}: untracked fields")


def _types(value: object) -> dict[str, type]:
    """Return the types of a table's values: the tolerance 1 is a count, and 1.0 is a share."""
    return {name: type(of) for name, of in value.items()} if isinstance(value, dict) else {}


def _format(value: object) -> str:
    return "none" if value is None else str(value)


def _scheme_mistakes(
    provider: ProviderDefinition, former: ProviderDefinition, format_mistake: MistakeFormatter
) -> Iterator[str]:
    """Yield a line for each forbidden change of a scheme."""
    for scheme in provider.schemes:
        versions = _versions(former, scheme.name)
        newest = max((version.version for version in versions), default=0)
        path = OperationPath(provider.name, scheme.name)
        if scheme.version < newest:
            yield format_mistake(
                path,
                f"version {scheme.version} is older than version {newest} in the database;"
                f" write version = {newest + 1}",
            )
        for known in versions:
            if known.version != scheme.version:
                continue
            if known.used:
                for operation, field in _frozen_changes(scheme, known):
                    yield format_mistake(
                        path._replace(operation=operation),
                        f"{field} changed, but catalogs use version {scheme.version};"
                        f" write version = {newest + 1}",
                    )
            elif removed := known.attempted - {found.name for found in scheme.operations}:
                yield format_mistake(
                    path,
                    f"the operation {min(removed)} was removed, but a catalog has tried it;"
                    f" write version = {newest + 1}",
                )


def _frozen_changes(
    scheme: SchemeDefinition, former: SchemeDefinition
) -> Iterator[tuple[str, str]]:
    """Yield the operation, if any, and the field of each change to a frozen field."""
    if set(scheme.includes) != set(former.includes):
        yield "", "includes"
    names = [operation.name for operation in scheme.operations]
    if names != [operation.name for operation in former.operations]:
        yield "", "the set of operations"
        return
    for operation, known in zip(scheme.operations, former.operations, strict=True):
        before = known.frozen()
        for name, value in operation.frozen().items():
            if value != before[name]:
                yield operation.name, name


def _kind_mistakes(
    declared: Iterable[ProviderDefinition],
    stored: Iterable[ProviderDefinition],
    format_mistake: MistakeFormatter,
) -> Iterator[str]:
    """Yield a line for each kind whose key changes, in its fields or in their types.

    Another key would make other records of the same things. An unused version has no records.
    """
    former: dict[str, list[KindDefinition]] = {}
    for provider in stored:
        used = tuple(scheme for scheme in provider.schemes if scheme.used)
        for kind, _ in kind_writers([replace(provider, schemes=used)]):
            former.setdefault(kind.name, []).append(kind)
    for kind, writer in kind_writers(declared):
        messages = [m for known in former.get(kind.name, []) for m in _key_changes(kind, known)]
        for message in dict.fromkeys(messages):
            yield format_mistake(writer, message)


def _key_changes(kind: KindDefinition, known: KindDefinition) -> Iterator[str]:
    if known.key != kind.key:
        yield (
            f'the key of "{kind.name}" changed from {", ".join(known.key)} to'
            f" {', '.join(kind.key)}; give the record type another view"
        )
        return
    types, former_types = dict(kind.fields), dict(known.fields)
    for name in kind.key:
        if types[name] != former_types[name]:
            yield (
                f'the key field "{name}" of "{kind.name}" changed from {former_types[name]} to'
                f" {types[name]}; give the record type another view"
            )
