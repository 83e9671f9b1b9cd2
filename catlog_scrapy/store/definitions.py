"""Definitions of providers, schemes, operations, kinds and schedules."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KindDefinition:
    """A sort of record: its fields in order as (name, SQL type), and those that are its key."""

    name: str
    key: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    # Made from a declaration, not from a record type: an item may hold more than the fields.
    foreign: bool = False


@dataclass(frozen=True)
class OperationDefinition:
    """An operation; times in seconds."""

    name: str
    spider: str
    executor: str = "scrapy"
    arguments: dict[str, str] = field(default_factory=dict)
    for_each: str | list[str] | None = None
    standalone_arguments: list[str] = field(default_factory=list)
    mode: str = "snapshot"
    kinds: tuple[KindDefinition, ...] = ()
    isolate: bool = False
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
        """What may not change once a catalog uses it."""
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
    """One version of a scheme; `used` says that a catalog was made of it."""

    name: str
    version: int = 1
    max_errors: int = 5
    includes: tuple[str, ...] = ()
    after: str | None = None
    operations: tuple[OperationDefinition, ...] = ()
    used: bool = False
    retired: bool = False


@dataclass(frozen=True)
class ScheduleDefinition:
    """A schedule; scheme and name are its identity."""

    scheme: str
    name: str
    cron: str
    timezone: str = "UTC"
    arguments: dict[str, str] = field(default_factory=dict)
    catch_up: str = "latest"
    enabled: bool = True


@dataclass(frozen=True)
class ProviderDefinition:
    """A provider with all its schemes and schedules."""

    name: str
    title: str = ""
    base_url: str | None = None
    max_running: int | None = None
    secrets: tuple[str, ...] = ()
    project: str | None = None
    schemes: tuple[SchemeDefinition, ...] = ()
    schedules: tuple[ScheduleDefinition, ...] = ()
