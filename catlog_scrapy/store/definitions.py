"""Definitions of providers, schemes, operations, kinds and schedules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSIONS_SUFFIX = "_versions"


@dataclass(frozen=True)
class KindDefinition:
    """Kind of record: `fields` in order as (name, SQL type), and the names of the key fields."""

    name: str
    key: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    # Declared in the provider file, not by a record type: items may hold further fields.
    foreign: bool = False
    # Fields of each index, and of each constraint. They may change at any time, so definitions that
    # differ in them are equal.
    indexes: tuple[tuple[str, ...], ...] = field(default=(), compare=False)
    unique: tuple[tuple[str, ...], ...] = field(default=(), compare=False)
    # Fields whose new values alone do not change a record.
    untracked: tuple[str, ...] = field(default=(), compare=False)
    # How items become records of a declared kind; see `Record.item_rules`.
    rules: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def table(self) -> str:
        """The table of the current records, as a quoted name."""
        return f'records."{self.name}"'

    @property
    def versions_table(self) -> str:
        """The table of the former states, as a quoted name."""
        return f'records."{self.name}{VERSIONS_SUFFIX}"'

    @property
    def key_types(self) -> tuple[str, ...]:
        """The SQL types of the key fields."""
        types = dict(self.fields)
        return tuple(types[name] for name in self.key)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The columns that views show, as (name, SQL type); `data` holds undeclared fields."""
        return (*self.fields, *((("data", "jsonb"),) if self.foreign else ()))


@dataclass(frozen=True)
class OperationDefinition:
    """Operation of a scheme; times in seconds."""

    name: str
    spider: str
    executor: str = "scrapy"
    arguments: dict[str, str] = field(default_factory=dict)
    for_each: str | list[str] | None = None
    standalone_arguments: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    mode: str = "snapshot"
    kinds: tuple[KindDefinition, ...] = ()
    isolate: bool = False
    tags: list[str] = field(default_factory=list)
    tolerate: dict[str, float] = field(default_factory=dict)
    min_results: int = 1
    timeout: float = 3600.0
    start_timeout: float = 120.0
    stall_timeout: float = 600.0
    backoff_base: float = 10.0
    backoff_cap: float = 600.0
    keep: float | None = None
    overlap: float | None = None
    refresh: dict[str, Any] | None = None

    def frozen(self) -> dict[str, Any]:
        """Return the attributes that must not change once a catalog uses the version."""
        return {
            "spider": self.spider,
            "executor": self.executor,
            "arguments": self.arguments,
            "for_each": self.for_each,
            "standalone_arguments": self.standalone_arguments,
            "mode": self.mode,
            "record types": tuple(sorted(self.kinds, key=lambda kind: kind.name)),
        }


@dataclass(frozen=True)
class SchemeDefinition:
    """Version of a scheme.

    `used` says that a catalog of the version is open or has stored something; `attempted` are the
    operations that have instances.
    """

    name: str
    version: int = 1
    max_errors: int = 5
    includes: tuple[str, ...] = ()
    after: str | None = None
    operations: tuple[OperationDefinition, ...] = ()
    used: bool = False
    attempted: frozenset[str] = frozenset()
    retired: bool = False


@dataclass(frozen=True)
class ScheduleDefinition:
    """Schedule of a scheme, identified by scheme and name."""

    scheme: str
    name: str
    cron: str
    timezone: str = "UTC"
    arguments: dict[str, str] = field(default_factory=dict)
    catch_up: str = "latest"
    enabled: bool = True


@dataclass(frozen=True)
class ProviderDefinition:
    """Provider with all its schemes and schedules."""

    name: str
    title: str = ""
    base_url: str | None = None
    max_running: int | None = None
    secrets: tuple[str, ...] = ()
    project: str | None = None
    schemes: tuple[SchemeDefinition, ...] = ()
    schedules: tuple[ScheduleDefinition, ...] = ()
