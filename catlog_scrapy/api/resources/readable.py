"""What there is to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.pages import PageSource


@dataclass(frozen=True)
class Readable:
    """A resource: `source` is what it is now, `then` what it was as of a time.

    `view` is the view that it shows, where it is a declared one. `kinds` are those that it reads,
    if it reads nothing else: then it changes with their stamps. `kind` is the one whose records are
    its rows, if its key names one of them.
    """

    path: str
    about: str
    source: PageSource
    key: tuple[str, ...]
    fields: tuple[str, ...]
    then: PageSource | None = None
    search: tuple[str, ...] = ()
    hidden: Mapping[str, frozenset[str]] = field(default_factory=dict)
    model: type[BaseModel] | None = None
    kinds: tuple[str, ...] | None = None
    view: str | None = None
    kind: KindDefinition | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are shown, with their SQL types."""
        return {name: self.source.columns[name] for name in self.fields}
