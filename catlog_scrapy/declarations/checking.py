"""Do the declarations fit the project's spiders, and each other? Every mistake is collected."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scrapy import Spider
from scrapy.spiderloader import SpiderLoaderProtocol

from catlog_scrapy.declarations.external import external_mistakes
from catlog_scrapy.declarations.kinds import check_kinds, kind_definition
from catlog_scrapy.declarations.model import OperationTable, SchemeTable, format_value
from catlog_scrapy.declarations.reading import DeclaredProvider
from catlog_scrapy.declarations.source import Location, suggest
from catlog_scrapy.declarations.spiders import spider_arguments
from catlog_scrapy.declarations.template_checks import template_mistake
from catlog_scrapy.records.lookup import is_record_type, make_record_type, record_types
from catlog_scrapy.records.record import RecordTypeError
from catlog_scrapy.redaction import secret_hint, secret_variable
from catlog_scrapy.scheduling.argument_templates import DUE_AT
from catlog_scrapy.scheduling.due import CronError, next_due
from catlog_scrapy.store.definitions import (
    KindDefinition,
    OperationDefinition,
    ProviderDefinition,
    ScheduleDefinition,
    SchemeDefinition,
)

# A moment for trying out a cron line. Any will do.
SAMPLE_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class CheckedProviders:
    """What the files come to, and the lines of all that is wrong with them."""

    providers: list[ProviderDefinition] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    files: dict[str, DeclaredProvider] = field(default_factory=dict)

    def format_mistake(self, provider: str, scheme: str, operation: str, what: str) -> str:
        """The line that tells of a mistake in a scheme, or in one of its operations."""
        declared = self.files[provider]
        return declared.source.mistake(declared.place(scheme, operation), what)


def check(
    files: Iterable[DeclaredProvider], loader: SpiderLoaderProtocol, views: Iterable[str]
) -> CheckedProviders:
    """Check *files* against the spiders of *loader* and the names of the project's *views*."""
    checked = CheckedProviders()
    for declared in files:
        name = declared.file.provider.name
        if name in checked.files:
            other = checked.files[name].source.name
            what = f'provider "{name}" is also in {other}; keep one of them'
            checked.mistakes.append(declared.source.mistake(("provider", "name"), what))
            continue
        checked.files[name] = declared
        checker = _ProviderChecker(declared, loader)
        checked.providers.append(checker.definition())
        checker.check_templates()
        checked.mistakes += checker.mistakes
    checked.mistakes += _shared_variables(checked)
    checked.mistakes += check_kinds(checked.providers, set(views), checked.format_mistake)
    return checked


def _shared_variables(checked: CheckedProviders) -> Iterator[str]:
    """Two names may come to one variable: a provider would be handed another one's secret."""
    owners: dict[str, str] = {}
    for provider in checked.providers:
        for name in provider.secrets:
            variable = secret_variable(provider.name, name)
            owner = owners.setdefault(variable, f"{provider.name}'s {name}")
            if owner != f"{provider.name}'s {name}":
                what = f'has "{name}", whose variable {variable} is {owner}; rename one of them'
                place = ("provider", "secrets")
                yield checked.files[provider.name].source.mistake(place, what)


def _named(name: str) -> OperationTable:
    return OperationTable(name=name)


class _ProviderChecker:
    """Checks one file and turns it into definitions."""

    def __init__(self, declared: DeclaredProvider, loader: SpiderLoaderProtocol) -> None:
        self.source = declared.source
        self.file = declared.file
        self.loader = loader
        self.mistakes: list[str] = []
        self.schemes = {scheme.name: scheme for scheme in declared.file.scheme}
        self.writers: dict[str, str] = {}
        self.kinds: dict[str, KindDefinition] = {}

    def add_mistake(self, place: Location, what: str) -> None:
        """Note a mistake."""
        self.mistakes.append(self.source.mistake(place, what))

    def definition(self) -> ProviderDefinition:
        """The provider as declared."""
        self._names_are_unique()
        operations = {
            index: self._operations(("scheme", index), scheme)
            for index, scheme in enumerate(self.file.scheme)
        }
        for index, scheme in enumerate(self.file.scheme):
            self._scheme(("scheme", index), scheme)
        self._secrets()
        schedules = tuple(self._schedules())
        provider = self.file.provider
        return ProviderDefinition(
            name=provider.name,
            title=provider.title,
            base_url=provider.base_url,
            max_running=provider.max_running,
            secrets=tuple(dict.fromkeys(provider.secrets)),
            schemes=tuple(
                SchemeDefinition(
                    name=scheme.name,
                    version=scheme.version,
                    max_errors=scheme.max_errors,
                    includes=tuple(scheme.includes),
                    after=scheme.after,
                    operations=tuple(sorted(operations[index], key=lambda o: o.name)),
                )
                for index, scheme in enumerate(self.file.scheme)
            ),
            schedules=schedules,
        )

    def _secrets(self) -> None:
        """Each is an argument of one of the provider's spiders."""
        spiders = {
            operation.spider_name
            for scheme in self.file.scheme
            for operation in [*scheme.operation, *map(_named, scheme.operations)]
        }
        known: set[str] = set()
        for name in spiders & set(self.loader.list()):
            known |= spider_arguments(self.loader.load(name))
        for name in self.file.provider.secrets:
            if name not in known:
                self.add_mistake(
                    ("provider", "secrets"),
                    f'no spider of the provider has an argument "{name}"; {suggest(name, known)}'
                    " (a spider names its arguments as attributes)",
                )

    def _not_secret(self, place: Location, arguments: Iterable[str]) -> None:
        provider = self.file.provider
        for name in arguments:
            if name in provider.secrets:
                self.add_mistake((*place, name), f"{secret_hint(provider.name, name)}; remove it")

    def _names_are_unique(self) -> None:
        seen: set[str] = set()
        for index, scheme in enumerate(self.file.scheme):
            if scheme.name in seen:
                self.add_mistake(
                    ("scheme", index),
                    "is here twice; keep its newest version, the database keeps the former ones",
                )
            seen.add(scheme.name)
        series: set[tuple[str, str]] = set()
        for index, schedule in enumerate(self.file.schedule):
            if (schedule.scheme, schedule.name) in series:
                self.add_mistake(
                    ("schedule", index), "is here twice; give one of them another name"
                )
            series.add((schedule.scheme, schedule.name))

    def _scheme(self, place: Location, scheme: SchemeTable) -> None:
        has_operations = bool(scheme.operations or scheme.operation)
        if has_operations and scheme.includes:
            self.add_mistake(
                place, "has operations and includes; move its operations to an included one"
            )
        if not has_operations and not scheme.includes:
            self.add_mistake(
                place, "has neither operations nor includes; name its spiders in operations"
            )
        for name in dict.fromkeys(scheme.includes):
            self._known_scheme((*place, "includes"), name)
            if scheme.includes.count(name) > 1:
                self.add_mistake((*place, "includes"), f'has "{name}" twice; remove one of them')
        if scheme.name in self._included(scheme.name):
            self.add_mistake((*place, "includes"), "leads back to itself; break the circle")
        if scheme.after:
            self._known_scheme((*place, "after"), scheme.after)
            if scheme.after == scheme.name:
                self.add_mistake((*place, "after"), "names itself; name another scheme")

    def _known_scheme(self, place: Location, name: str) -> None:
        if name not in self.schemes:
            self.add_mistake(place, f'unknown scheme "{name}"; {suggest(name, self.schemes)}')

    def _included(self, name: str) -> set[str]:
        """All schemes that a scheme includes, directly or not."""
        found: set[str] = set()
        ahead = list(self.schemes[name].includes)
        while ahead:
            following = ahead.pop()
            if following not in found and following in self.schemes:
                found.add(following)
                ahead += self.schemes[following].includes
        return found

    def _operations(self, place: Location, scheme: SchemeTable) -> list[OperationDefinition]:
        named = [
            ((*place, "operations", index), _named(name))
            for index, name in enumerate(scheme.operations)
        ]
        tables = [
            ((*place, "operation", index), operation)
            for index, operation in enumerate(scheme.operation)
        ]
        definitions: dict[str, OperationDefinition] = {}
        for where, operation in named + tables:
            if operation.name in definitions:
                self.add_mistake(where, "is in this scheme twice; give one of them another name")
            definitions[operation.name] = self._operation(where, scheme.name, operation)
        return list(definitions.values())

    def _operation(
        self, place: Location, scheme: str, operation: OperationTable
    ) -> OperationDefinition:
        spidercls = self._spider(place, operation)
        kinds = self._kinds(place, operation, spidercls)
        for kind in kinds:
            here = f"{scheme}/{operation.name}"
            if kind.name in self.writers:
                self.add_mistake(
                    place,
                    f'writes "{kind.name}" as {self.writers[kind.name]} does; one operation of a'
                    " provider writes a kind: give one of them a record type with another view",
                )
            self.writers.setdefault(kind.name, here)
            self.kinds[kind.name] = kind
        self._arguments((*place, "arguments"), operation.arguments, spidercls)
        self._arguments((*place, "standalone_arguments"), operation.standalone_arguments, spidercls)
        self._reading(place, operation, kinds, spidercls)
        for where, what in external_mistakes(operation):
            self.add_mistake((*place, *where), what)
        return OperationDefinition(
            name=operation.name,
            spider=operation.spider_name,
            executor=operation.executor,
            arguments=operation.arguments,
            for_each=operation.for_each,
            standalone_arguments=operation.standalone_arguments,
            mode=operation.mode,
            kinds=tuple(sorted(kinds, key=lambda kind: kind.name)),
            isolate=operation.isolate,
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

    def _spider(self, place: Location, operation: OperationTable) -> type[Spider] | None:
        if operation.executor == "external":
            return None
        name = operation.spider_name
        if name not in self.loader.list():
            where = (*place, "spider") if operation.spider else place
            self.add_mistake(where, f'unknown spider "{name}"; {suggest(name, self.loader.list())}')
            return None
        return self.loader.load(name)

    def _kinds(
        self, place: Location, operation: OperationTable, spidercls: type[Spider] | None
    ) -> list[KindDefinition]:
        own = record_types(spidercls) if spidercls else ()
        declared = operation.kind is not None or operation.key is not None
        if own and (declared or operation.fields):
            self.add_mistake(
                place,
                f'declares a kind, but the spider "{operation.spider_name}" has its own record'
                " type; remove kind, key and fields",
            )
        if own:
            typed = [record for record in own if is_record_type(record)]
            if len(typed) < len(own):
                self.add_mistake(
                    place,
                    f'has a spider "{operation.spider_name}" whose `record` is no record type;'
                    " derive it from catlog_scrapy.records.Record",
                )
            return [kind_definition(record) for record in typed]
        if operation.kind is None or operation.key is None:
            if operation.executor == "external":
                self.add_mistake(
                    place,
                    "does not say what its executor sends; write kind, key and, for columns of"
                    " their own, fields",
                )
            elif spidercls:
                self.add_mistake(
                    place,
                    f'does not say what "{operation.spider_name}" yields; give the spider a'
                    " `record`, or the operation kind and key",
                )
            return []
        try:
            made = make_record_type(operation.kind, operation.key, operation.fields)
        except RecordTypeError as error:
            self.add_mistake(place, str(error))
            return []
        return [kind_definition(made, foreign=True)]

    def _reading(
        self,
        place: Location,
        operation: OperationTable,
        kinds: Sequence[KindDefinition],
        spidercls: type[Spider] | None,
    ) -> None:
        """Cursors and refreshing need a spider that knows of them."""
        spider = operation.spider_name
        if operation.overlap is not None:
            where = (*place, "overlap")
            if operation.mode != "incremental":
                self.add_mistake(where, 'is for cursors; write mode = "incremental"')
            elif spidercls and "cursor" not in spider_arguments(spidercls):
                self.add_mistake(
                    where, f'is for cursors; give the spider "{spider}" a `cursor = ""`'
                )
        if operation.refresh:
            where = (*place, "refresh")
            fields = [name for kind in kinds for name, _ in kind.fields]
            if len(kinds) > 1:
                self.add_mistake(
                    where, f'is for one record type; "{spider}" yields {len(kinds)}: remove it'
                )
            elif fields and operation.refresh.by not in fields:
                by = operation.refresh.by
                self.add_mistake((*where, "by"), f'unknown field "{by}"; {suggest(by, fields)}')
            if spidercls and not hasattr(spidercls, "fresh"):
                self.add_mistake(
                    where, f'needs a spider that asks for it; give "{spider}" a `fresh = {{}}`'
                )

    def _arguments(
        self, place: Location, arguments: Iterable[str], spidercls: type[Spider] | None
    ) -> None:
        self._not_secret(place, arguments)
        if spidercls is None:
            return
        known = spider_arguments(spidercls)
        for name in arguments:
            if name not in known:
                self.add_mistake(
                    (*place, name),
                    f'unknown argument "{name}" of the spider "{spidercls.name}";'
                    f" {suggest(name, known)} (a spider names its arguments as attributes)",
                )

    def check_templates(self) -> None:
        """Check what arguments are filled in from, once all of the provider's kinds are known."""
        for index, scheme in enumerate(self.file.scheme):
            for number, operation in enumerate(scheme.operation):
                place = ("scheme", index, "operation", number)
                self._templates(place, operation)

    def _templates(self, place: Location, operation: OperationTable) -> None:
        fields = {DUE_AT: DUE_AT}
        if operation.for_each:
            fields["part"] = "text"
        elif operation.standalone_arguments:
            self.add_mistake(
                (*place, "standalone_arguments"),
                "needs for_each; add it, or remove standalone_arguments",
            )
        if isinstance(operation.for_each, str):
            kind = self.kinds.get(operation.for_each)
            if kind is None:
                self.add_mistake(
                    (*place, "for_each"),
                    f'no operation of this provider writes "{operation.for_each}";'
                    f" {suggest(operation.for_each, self.kinds)}",
                )
                return
            # The part and the due time win over fields so named, as they do at run time.
            fields = {**dict(kind.fields), **fields}
        for name in operation.standalone_arguments:
            if name in fields:
                self.add_mistake(
                    (*place, "standalone_arguments"),
                    f'names "{name}", by which a load chooses parts; name an argument that is no'
                    f" field of {format_value(operation.for_each)}",
                )
        self._filled((*place, "arguments"), operation.arguments, fields)

    def _filled(
        self, place: Location, templates: Mapping[str, str], fields: Mapping[str, str]
    ) -> None:
        for name, template in templates.items():
            if what := template_mistake(template, fields):
                self.add_mistake((*place, name), what)

    def _schedules(self) -> Iterable[ScheduleDefinition]:
        for index, schedule in enumerate(self.file.schedule):
            place = ("schedule", index)
            self._known_scheme((*place, "scheme"), schedule.scheme)
            try:
                next_due(schedule.cron, schedule.timezone, SAMPLE_TIME)
            except CronError as error:
                where = "timezone" if "time zone" in str(error) else "cron"
                self.add_mistake((*place, where), str(error))
            self._filled((*place, "arguments"), schedule.arguments, {DUE_AT: DUE_AT})
            self._not_secret((*place, "arguments"), schedule.arguments)
            self._schedule_arguments((*place, "arguments"), schedule.scheme, schedule.arguments)
            yield ScheduleDefinition(**schedule.model_dump())

    def _schedule_arguments(
        self, place: Location, scheme_name: str, arguments: Mapping[str, str]
    ) -> None:
        scheme = self.schemes.get(scheme_name)
        if scheme is None or any(table.executor == "external" for table in scheme.operation):
            return
        known: set[str] = {"part"}
        spiders = [*scheme.operations, *(operation.spider_name for operation in scheme.operation)]
        for name in spiders:
            if name in self.loader.list():
                known |= spider_arguments(self.loader.load(name))
        for operation in scheme.operation:
            kind = self.kinds.get(str(operation.for_each))
            known |= {name for name, _ in kind.fields} if kind else set()
        for name in arguments:
            if name not in known and not scheme.includes:
                self.add_mistake(
                    (*place, name), f'unknown argument "{name}"; {suggest(name, known)}'
                )
