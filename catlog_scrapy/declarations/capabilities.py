"""Capabilities of a project: the spiders, record types and arguments that it can run."""

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
    """A project's name, with the record types and the arguments of each spider.

    A record type is written as in the database: name, key and fields. All values are plain data,
    so that one process can send them to another.
    """

    project: str
    spiders: Mapping[str, Sequence[Mapping[str, Any]]]
    arguments: Mapping[str, Sequence[str]]

    def require_known(
        self, title: str, operations: Iterable[Mapping[str, Any]], arguments: Iterable[str]
    ) -> None:
        """Raise NotFound for an argument that no spider of *operations* takes.

        *operations* are rows of `scheme_operations`; *title* names them in the error.
        """
        known: set[str] = set()
        for operation in operations:
            if operation["executor"] == "external":
                return  # the arguments of an external executor are not declared
            known |= set(self.arguments.get(operation["spider"], ()))
            if operation["for_each"]:
                known |= {"part"} | {field["name"] for field in operation["fields"] or []}
        unknown = sorted(set(arguments) - known)
        if unknown:
            raise NotFound(
                f"no spider of {title} has an argument {unknown[0]!r};"
                f" the arguments are: {', '.join(sorted(known)) or 'none'}."
            )

    def reason_unsupported(self, claim: Claim) -> str | None:
        """Return the reason why this project cannot run *claim*, or None if it can."""
        if claim.project not in (None, self.project):
            return f"the project here is {self.project!r}, not {claim.project!r}"
        if claim.spider not in self.spiders:
            return (
                f"the project {self.project!r} has no spider {claim.spider!r} here;"
                " deploy the project's applied version"
            )
        kinds = [kind for kind in claim.kinds if not kind["foreign"]]
        if kinds and not _are_equal(kinds, self.spiders[claim.spider]):
            return (
                f"the record types of the spider {claim.spider!r} differ from the applied ones;"
                " run scrapy apply, or deploy the project's applied version"
            )
        return None


def _are_equal(kinds: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> bool:
    def comparable(kind: Mapping[str, Any]) -> tuple[Any, ...]:
        fields = sorted((field["name"], field["type"]) for field in kind["fields"])
        return kind["name"], list(kind["key"]), fields

    return sorted(map(comparable, kinds)) == sorted(map(comparable, own))


def read_capabilities(settings: BaseSettings, loader: SpiderLoaderProtocol) -> Capabilities:
    """Read the capabilities of the project of *settings* from the spiders of *loader*."""
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
