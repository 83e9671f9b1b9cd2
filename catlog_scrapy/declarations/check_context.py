"""State that the checks of one provider file share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scrapy.spiderloader import SpiderLoaderProtocol

from catlog_scrapy.declarations.model import OperationTable, ProviderFile, SchemeTable
from catlog_scrapy.declarations.reading import DeclaredProvider
from catlog_scrapy.declarations.source import Location, suggest
from catlog_scrapy.declarations.spiders import spider_arguments
from catlog_scrapy.declarations.template_checks import template_mistake
from catlog_scrapy.redaction import secret_hint
from catlog_scrapy.store.definitions import KindDefinition

# Added to the mistake of an unknown argument: the list of arguments is not obvious.
ARGUMENTS_HINT = "(spider arguments are the spider's public attributes)"


@dataclass
class CheckContext:
    """A provider file under check, the project's spiders, mistakes and notes found so far.

    `kinds` are the kinds that the file's operations write.
    """

    declared: DeclaredProvider
    loader: SpiderLoaderProtocol
    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kinds: dict[str, KindDefinition] = field(default_factory=dict)

    @property
    def file(self) -> ProviderFile:
        """Return the file's tables."""
        return self.declared.file

    @property
    def schemes(self) -> dict[str, SchemeTable]:
        """Return the file's schemes by name."""
        return {scheme.name: scheme for scheme in self.file.scheme}

    def add_mistake(self, location: Location, message: str) -> None:
        """Add the line of a mistake at *location*."""
        self.mistakes.append(self.declared.source.mistake(location, message))

    def add_note(self, location: Location, message: str) -> None:
        """Add the line of a note on something that is valid and easily overlooked."""
        self.notes.append(self.declared.source.mistake(location, message))

    def known_arguments(self, spiders: Iterable[str]) -> set[str]:
        """Return the arguments of all *spiders* that exist."""
        existing = set(spiders) & set(self.loader.list())
        return {name for spider in existing for name in spider_arguments(self.loader.load(spider))}

    def check_scheme_name(self, location: Location, name: str) -> None:
        """Check that the file has a scheme *name*."""
        if name not in self.schemes:
            self.add_mistake(location, f'unknown scheme "{name}"; {suggest(name, self.schemes)}')

    def check_not_secret(self, location: Location, arguments: Iterable[str]) -> None:
        """Check that the file gives no value to a secret: secrets come from the environment."""
        provider = self.file.provider
        for name in arguments:
            if name in provider.secrets:
                message = f"{secret_hint(provider.name, name)}; remove it"
                self.add_mistake((*location, name), message)

    def check_templates(
        self, location: Location, templates: Mapping[str, str], fields: Mapping[str, str]
    ) -> None:
        """Check that each argument template can be rendered from *fields*."""
        for name, template in templates.items():
            if message := template_mistake(template, fields):
                self.add_mistake((*location, name), message)


def scheme_operations(scheme: SchemeTable) -> list[OperationTable]:
    """Return the operations of a scheme, those given by name alone included."""
    return [*(OperationTable(name=name) for name in scheme.operations), *scheme.operation]
