"""Checks of provider files: each against the project's spiders, and all against each other.

A check collects every mistake instead of stopping at the first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from scrapy.spiderloader import SpiderLoaderProtocol

from catlog_scrapy.declarations.check_context import (
    ARGUMENTS_HINT,
    CheckContext,
    scheme_operations,
)
from catlog_scrapy.declarations.kinds import OperationPath, check_kinds
from catlog_scrapy.declarations.operation_checks import check_operation_templates
from catlog_scrapy.declarations.reading import DeclaredProvider
from catlog_scrapy.declarations.schedule_checks import check_schedules
from catlog_scrapy.declarations.scheme_checks import check_schemes
from catlog_scrapy.declarations.source import suggest
from catlog_scrapy.redaction import secret_variable
from catlog_scrapy.store.definitions import ProviderDefinition


@dataclass
class CheckedProviders:
    """Definitions built from the provider files, and a line for each mistake and each note."""

    providers: list[ProviderDefinition] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: dict[str, DeclaredProvider] = field(default_factory=dict)

    def format_mistake(self, writer: OperationPath, message: str) -> str:
        """Format the line of a mistake in a scheme or in one of its operations."""
        declared = self.files[writer.provider]
        location = declared.location(writer.scheme, writer.operation)
        return declared.source.mistake(location, message)


def check(
    files: Iterable[DeclaredProvider], loader: SpiderLoaderProtocol, views: Iterable[str]
) -> CheckedProviders:
    """Check *files* against the spiders of *loader* and the names of the project's *views*."""
    checked = CheckedProviders()
    for declared in files:
        name = declared.file.provider.name
        if name in checked.files:
            other = checked.files[name].source.name
            message = f'the provider "{name}" is also declared in {other}; keep one of the files'
            checked.mistakes.append(declared.source.mistake(("provider", "name"), message))
            continue
        checked.files[name] = declared
        context = CheckContext(declared, loader)
        checked.providers.append(_check_provider(context))
        checked.mistakes += context.mistakes
        checked.notes += context.notes
    checked.mistakes += _check_secret_variables(checked)
    checked.mistakes += check_kinds(checked.providers, set(views), checked.format_mistake)
    return checked


def _check_provider(context: CheckContext) -> ProviderDefinition:
    """Check one file and build its definition."""
    provider = context.file.provider
    schemes = check_schemes(context)
    _check_secrets(context)
    schedules = check_schedules(context)
    # The templates of one operation may refer to the kind of any other operation in the file.
    check_operation_templates(context)
    return ProviderDefinition(
        name=provider.name,
        title=provider.title,
        base_url=provider.base_url,
        max_running=provider.max_running,
        secrets=tuple(dict.fromkeys(provider.secrets)),
        schemes=tuple(schemes),
        schedules=tuple(schedules),
    )


def _check_secrets(context: CheckContext) -> None:
    """Check that each secret is an argument of one of the provider's spiders."""
    spiders = {
        operation.spider_name
        for scheme in context.file.scheme
        for operation in scheme_operations(scheme)
    }
    known = context.known_arguments(spiders)
    for name in context.file.provider.secrets:
        if name not in known:
            context.add_mistake(
                ("provider", "secrets"),
                f'no spider of the provider has an argument "{name}"; {suggest(name, known)}'
                f" {ARGUMENTS_HINT}",
            )


def _check_secret_variables(checked: CheckedProviders) -> Iterator[str]:
    """Check that no two secrets share a variable: one provider would get another's secret."""
    owners: dict[str, str] = {}
    for provider in checked.providers:
        for name in provider.secrets:
            variable = secret_variable(provider.name, name)
            secret = f'"{name}" of the provider "{provider.name}"'
            owner = owners.setdefault(variable, secret)
            if owner != secret:
                message = (
                    f'"{name}" is read from {variable}, which is already the variable of {owner};'
                    " rename one of the secrets"
                )
                source = checked.files[provider.name].source
                yield source.mistake(("provider", "secrets"), message)
