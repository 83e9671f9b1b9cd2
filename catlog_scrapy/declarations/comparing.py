"""Declared against stored: what would change, and what must not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from catlog_scrapy.store.schemes import (
    KindDefinition,
    OperationDefinition,
    ProviderDefinition,
    SchemeDefinition,
)

# Old values of the left type can always be read as one of the right.
WIDER = {"bigint": {"numeric", "double precision", "text"}}


@dataclass(frozen=True)
class Change:
    """Something that apply does: `+` adds, `~` changes, `-` retires."""

    sign: str
    what: str

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"


def compare(
    declared: Sequence[ProviderDefinition], stored: Sequence[ProviderDefinition]
) -> tuple[list[Change], list[str]]:
    """What to do to bring *stored* to *declared*, and the lines of what is refused."""
    changes: list[Change] = []
    refused: list[str] = []
    known = {provider.name: provider for provider in stored}
    for provider in declared:
        former = known.pop(provider.name, None)
        if former is None:
            changes.append(Change("+", f"provider {provider.name}"))
        changes += _provider(provider, former or ProviderDefinition(provider.name), refused)
    for gone in known.values():
        if any(not scheme.retired for scheme in gone.schemes):
            changes.append(Change("-", f"provider {gone.name}: its file is gone"))
    refused += _kinds(declared, stored)
    return changes, refused


def _provider(
    provider: ProviderDefinition, former: ProviderDefinition, refused: list[str]
) -> Iterator[Change]:
    bare = replace(provider, schemes=(), schedules=())
    if former.schemes or former.schedules:
        yield from _differences(
            f"provider {provider.name}", bare, replace(former, schemes=(), schedules=())
        )
    for scheme in provider.schemes:
        versions = [version for version in former.schemes if version.name == scheme.name]
        yield from _scheme(provider.name, scheme, versions, refused)
    names = {scheme.name for scheme in provider.schemes}
    for scheme in former.schemes:
        if scheme.name not in names and not scheme.retired:
            yield Change("-", f"scheme {provider.name}/{scheme.name} {scheme.version}")
    schedules = {(schedule.scheme, schedule.name): schedule for schedule in former.schedules}
    for schedule in provider.schedules:
        title = f"schedule {provider.name}/{schedule.scheme} {schedule.name!r}"
        known = schedules.pop((schedule.scheme, schedule.name), None)
        if known is None:
            yield Change("+", f"{title}: {schedule.cron} {schedule.timezone}")
        else:
            yield from _differences(title, schedule, known)
    for schedule in schedules.values():
        if schedule.enabled:
            title = f"schedule {provider.name}/{schedule.scheme} {schedule.name!r}"
            yield Change("-", f"{title}: disabled, its history stays")


def _scheme(
    provider: str,
    scheme: SchemeDefinition,
    versions: Sequence[SchemeDefinition],
    refused: list[str],
) -> Iterator[Change]:
    title = f"scheme {provider}/{scheme.name} {scheme.version}"
    newest = max((version.version for version in versions), default=0)
    if scheme.version < newest:
        refused.append(
            f'{provider}: scheme "{scheme.name}": version {scheme.version} is older than version'
            f" {newest}, which the database has; write version = {newest + 1}"
        )
        return
    former = next((version for version in versions if version.version == scheme.version), None)
    if former is None:
        yield Change("+", title)
        for version in versions:
            if not version.retired:
                yield Change("-", f"scheme {provider}/{scheme.name} {version.version}: retired")
        return
    if former.used:
        for what in _frozen_differences(scheme, former):
            refused.append(
                f'{provider}: scheme "{scheme.name}": {what} changed, but version'
                f" {scheme.version} is used by catalogs; write version = {scheme.version + 1}"
            )
    if former.retired:
        yield Change("+", f"{title}: back")
    yield from _differences(
        title,
        replace(scheme, operations=()),
        replace(former, operations=(), used=False, retired=False),
    )
    operations = {operation.name: operation for operation in former.operations}
    for operation in scheme.operations:
        known = operations.pop(operation.name, None)
        where = f"operation {provider}/{scheme.name}/{operation.name}"
        if known is None:
            yield Change("+", where)
        else:
            yield from _differences(where, operation, known)
    for name in operations:
        yield Change("-", f"operation {provider}/{scheme.name}/{name}")


def _frozen_differences(scheme: SchemeDefinition, former: SchemeDefinition) -> Iterator[str]:
    if set(scheme.includes) != set(former.includes):
        yield "includes"
    names = [operation.name for operation in scheme.operations]
    if names != [operation.name for operation in former.operations]:
        yield "its operations"
        return
    for operation, known in zip(scheme.operations, former.operations, strict=True):
        yield from _frozen_of(operation, known)


def _frozen_of(operation: OperationDefinition, known: OperationDefinition) -> Iterator[str]:
    before = known.frozen()
    for name, value in operation.frozen().items():
        if value != before[name]:
            yield f'{name} of operation "{operation.name}"'


def _differences(title: str, new: object, old: object) -> Iterator[Change]:
    """One change for each field of two dataclasses that differs."""
    for name, value in vars(new).items():
        before = getattr(old, name)
        if name == "kinds" and value != before:
            yield Change("~", f"{title}: record types")
        elif value != before:
            yield Change("~", f"{title}: {name} {_shown(before)} -> {_shown(value)}")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _kinds(
    declared: Iterable[ProviderDefinition], stored: Iterable[ProviderDefinition]
) -> Iterator[str]:
    """A kind's key stays, and its fields only widen: its view shows records of all versions."""
    former: dict[str, list[KindDefinition]] = {}
    for kind in _all_kinds(stored):
        former.setdefault(kind.name, []).append(kind)
    for kind in set(_all_kinds(declared)):
        types = dict(kind.fields)
        for known in former.get(kind.name, []):
            if known.key != kind.key:
                yield (
                    f'the key of "{kind.name}" was {", ".join(known.key)} and is now'
                    f" {', '.join(kind.key)}; give the record type another view"
                )
            for name, was in known.fields:
                now = types.get(name, was)
                if now not in {was, "text"} | WIDER.get(was, set()):
                    yield (
                        f'the field "{name}" of "{kind.name}" was {was} and is now {now}; give the'
                        " field another name, or the record type another view"
                    )


def _all_kinds(providers: Iterable[ProviderDefinition]) -> Iterator[KindDefinition]:
    for provider in providers:
        for scheme in provider.schemes:
            for operation in scheme.operations:
                yield from operation.kinds
