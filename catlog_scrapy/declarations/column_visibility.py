"""Column visibility: which roles may read a column of a resource."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from catlog_scrapy.models.access import ROLES


@dataclass(frozen=True)
class ColumnVisibility:
    """Columns of a resource that are hidden from roles: `hidden` maps a role to its columns."""

    hidden: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_declaration(cls, hidden: Mapping[str, Sequence[str]]) -> Self:
        """Invert a declared `hidden`: columns, each with the roles that may not read it."""
        return cls(
            {
                role: frozenset(name for name, roles in hidden.items() if role in roles)
                for role in ROLES
            }
        )

    @property
    def hidden_columns(self) -> frozenset[str]:
        """Return the columns that are hidden from at least one role."""
        return frozenset().union(*self.hidden.values())

    def visible(self, columns: Iterable[str], role: str) -> tuple[str, ...]:
        """Return those *columns* that *role* may read."""
        hidden = self.hidden.get(role, frozenset())
        return tuple(name for name in columns if name not in hidden)
