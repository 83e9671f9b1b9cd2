"""What a project can run, and why it cannot run something else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scrapy.settings import BaseSettings
from scrapy.spiderloader import SpiderLoaderProtocol

from catlog_scrapy.declarations.kinds import kind_definition
from catlog_scrapy.declarations.spiders import project_name, spider_arguments
from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.records.lookup import is_record_type, record_types
from catlog_scrapy.store.queue.claims import Claim


@dataclass(frozen=True)
class Capabilities:
    """A project's name, its spiders with the record types that they say they yield, and with the

    arguments that they know. A record type is written as the database has it: name, key and fields.
    Plain data, so that it can be sent from one process to another.
    """

    project: str
    spiders: Mapping[str, Sequence[Mapping[str, Any]]]
    arguments: Mapping[str, Sequence[str]]

    def require_known(
        self, title: str, operations: Iterable[Mapping[str, Any]], arguments: Iterable[str]
    ) -> None:
        """Raise NotFound for an argument that none of *operations* knows.

        They are rows of `scheme_operations`; *title* says whose they are.
        """
        known: set[str] = set()
        for operation in operations:
            if operation["executor"] == "external":
                return  # who knows what it knows
            known |= set(self.arguments.get(operation["spider"], ()))
            if operation["for_each"]:
                known |= {"part"} | {field["name"] for field in operation["fields"] or []}
        unknown = sorted(set(arguments) - known)
        if unknown:
            raise NotFound(
                f"no spider of {title} knows the argument {unknown[0]!r};"
                f" they know {', '.join(sorted(known)) or 'none'}."
            )

    def reason_unsupported(self, claim: Claim) -> str | None:
        """Why this project cannot run what was claimed; None if it can."""
        if claim.project not in (None, self.project):
            return f"there is no project {claim.project!r} here, only {self.project!r}"
        if claim.spider not in self.spiders:
            return (
                f"the project {self.project!r} has no spider {claim.spider!r} here;"
                " bring it to the version that was applied"
            )
        kinds = [kind for kind in claim.kinds if not kind["foreign"]]
        if kinds and not _same(kinds, self.spiders[claim.spider]):
            return (
                f"the record types of the spider {claim.spider!r} are not those that were applied;"
                " run scrapy apply, or bring the project to the version that was applied"
            )
        return None


def _same(kinds: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> bool:
    def known(kind: Mapping[str, Any]) -> tuple[Any, ...]:
        fields = sorted((field["name"], field["type"]) for field in kind["fields"])
        return kind["name"], list(kind["key"]), fields

    return sorted(map(known, kinds)) == sorted(map(known, own))


def read_capabilities(settings: BaseSettings, loader: SpiderLoaderProtocol) -> Capabilities:
    """What the project of *settings* can run with the spiders of *loader*."""
    return Capabilities(
        project_name(settings),
        arguments={name: sorted(spider_arguments(loader.load(name))) for name in loader.list()},
        spiders={
            name: [
                {
                    "name": kind.name,
                    "key": list(kind.key),
                    "fields": [{"name": name, "type": type_} for name, type_ in kind.fields],
                }
                for kind in map(kind_definition, record_types(loader.load(name)))
            ]
            for name in loader.list()
            if all(map(is_record_type, record_types(loader.load(name))))
        },
    )
