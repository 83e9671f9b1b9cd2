"""DeclaredProvider against stored: what would change, and what must not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from catlog_scrapy.declarations.kinds import MistakeFormatter, kind_writers
from catlog_scrapy.store.definitions import KindDefinition, ProviderDefinition, SchemeDefinition

# Old values of the left type can always be read as one of the right.
WIDER_TYPES = {"bigint": {"numeric", "double precision", "text"}}


@dataclass(frozen=True)
class Change:
    """Something that apply does: `+` adds, `~` changes, `-` retires."""

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
    """What to do to bring *stored* to what *project* declared, and the lines of what is refused.

    *format_mistake* makes such a line, with its place in the file.
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
                " give yours another name, or this project that CATLOG_PROJECT"
            )
        changes += _provider(provider, former, refused, format_mistake)
    for gone in known.values():
        theirs = gone.project not in (None, project)
        if not theirs and any(not scheme.retired for scheme in gone.schemes):
            changes.append(Change("-", f"provider {gone.name}: its file is gone"))
    refused += _kinds(declared, stored, format_mistake)
    return changes, refused


def _provider(
    provider: ProviderDefinition,
    former: ProviderDefinition,
    refused: list[str],
    format_mistake: MistakeFormatter,
) -> Iterator[Change]:
    yield from _differences(
        f"provider {provider.name}",
        replace(provider, schemes=(), schedules=()),
        replace(former, schemes=(), schedules=()),
    )
    for scheme in provider.schemes:
        versions = [version for version in former.schemes if version.name == scheme.name]
        refused += [
            format_mistake(provider.name, scheme.name, operation, what)
            for operation, what in _refusals(scheme, versions)
        ]
        yield from _scheme(provider.name, scheme, versions)
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


def _refusals(
    scheme: SchemeDefinition, versions: Sequence[SchemeDefinition]
) -> Iterator[tuple[str, str]]:
    """What must not be done to a scheme: the operation, if it is one's, and the reason."""
    newest = max((version.version for version in versions), default=0)
    if scheme.version < newest:
        yield (
            "",
            f"version {scheme.version} is older than version {newest}, which the database has;"
            f" write version = {newest + 1}",
        )
    for former in versions:
        if former.used and former.version == scheme.version:
            for operation, what in _frozen_differences(scheme, former):
                yield (
                    operation,
                    f"{what} changed, but version {scheme.version} is used by catalogs;"
                    f" write version = {newest + 1}",
                )


def _scheme(
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


def _frozen_differences(
    scheme: SchemeDefinition, former: SchemeDefinition
) -> Iterator[tuple[str, str]]:
    if set(scheme.includes) != set(former.includes):
        yield "", "includes"
    names = [operation.name for operation in scheme.operations]
    if names != [operation.name for operation in former.operations]:
        yield "", "its set of operations"
        return
    for operation, known in zip(scheme.operations, former.operations, strict=True):
        before = known.frozen()
        for name, value in operation.frozen().items():
            if value != before[name]:
                yield operation.name, f"its {name}"


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
    declared: Iterable[ProviderDefinition],
    stored: Iterable[ProviderDefinition],
    format_mistake: MistakeFormatter,
) -> Iterator[str]:
    """A kind's key stays, and its fields only widen: its view shows records of all versions.

    What no catalog has used has left no record.
    """
    former: dict[str, list[KindDefinition]] = {}
    for provider in stored:
        used = tuple(scheme for scheme in provider.schemes if scheme.used)
        for kind, _ in kind_writers([replace(provider, schemes=used)]):
            former.setdefault(kind.name, []).append(kind)
    for kind, writer in kind_writers(declared):
        whats = [what for known in former.get(kind.name, []) for what in _narrowed(kind, known)]
        for what in dict.fromkeys(whats):
            yield format_mistake(*writer, what)


def _narrowed(kind: KindDefinition, known: KindDefinition) -> Iterator[str]:
    if known.key != kind.key:
        yield (
            f'the key of "{kind.name}" was {", ".join(known.key)} and is now'
            f" {', '.join(kind.key)}; give the record type another view"
        )
    types = dict(kind.fields)
    for name, was in known.fields:
        now = types.get(name, was)
        if now not in {was, "text"} | WIDER_TYPES.get(was, set()):
            yield (
                f'the field "{name}" of "{kind.name}" was {was} and is now {now}; give the'
                " field another name, or the record type another view"
            )
