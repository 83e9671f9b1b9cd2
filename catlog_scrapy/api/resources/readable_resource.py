"""Resources that clients can read: listings of loads, and declared views."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from catlog_scrapy.declarations.column_visibility import ColumnVisibility
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.page_query import PageSource


@dataclass(frozen=True)
class ReadableResource:
    """A listing of loads, or a view that the project declares as a resource.

    `source` reads the current rows, `as_of_source` the rows as of a time. `view` is the declared
    view. `kinds` are set if the resource reads nothing but these kinds: its rows then change only
    with the change stamps of these kinds. `kind` is set if each row is a record of this kind and
    the resource's key contains the record's key.
    """

    path: str
    about: str
    source: PageSource
    key: tuple[str, ...]
    fields: tuple[str, ...]
    as_of_source: PageSource | None = None
    search: tuple[str, ...] = ()
    visibility: ColumnVisibility = field(default_factory=ColumnVisibility)
    model: type[BaseModel] | None = None
    kinds: tuple[str, ...] | None = None
    view: str | None = None
    kind: KindDefinition | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The shown columns with their SQL types."""
        return {name: self.source.columns[name] for name in self.fields}

    @property
    def has_history(self) -> bool:
        """Return whether the former states of a row can be read."""
        return bool(self.kind or (self.as_of_source and self.kinds))

    @property
    def public_fields(self) -> tuple[str, ...]:
        """The shown columns that are hidden from no role; anyone may read the documentation."""
        hidden = self.visibility.hidden_columns
        return tuple(name for name in self.fields if name not in hidden)

    def visible_fields(self, role: str) -> tuple[str, ...]:
        """Return the fields that *role* may see."""
        return self.visibility.visible(self.fields, role)

    def source_at(self, as_of: object) -> PageSource:
        """Return the source of the rows as of a time, or of the current rows for None."""
        return self.as_of_source if as_of is not None and self.as_of_source else self.source

    def key_filter(self, values: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the filter that selects the row with these key *values*."""
        return {
            name: [str(value) if self.columns.get(name) == "uuid" else value]
            for name, value in values.items()
        }
