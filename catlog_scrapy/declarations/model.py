"""Tables of a provider file: their fields and the valid values of each field.

Whether the values fit the project's spiders is checked in `checking`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from catlog_scrapy.scheduling.argument_urls import parse_host

SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
NAME = re.compile(r"[\w-]+")
SECRET_NAME = re.compile(r"[a-z]\w*", re.ASCII)
SCHEDULE_NAME = re.compile(r"[\w-]+( [\w-]+)*")
BASE_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def _name(value: str) -> str:
    """Validate a part of a path PROVIDER/SCHEME/OPERATION: a name without a slash."""
    if not NAME.fullmatch(value):
        raise ValueError(f'"{value}" is not a valid name; use letters, digits, "_" and "-"')
    return value


def _secret_name(value: str) -> str:
    if not SECRET_NAME.fullmatch(value) or value == "base_url":
        raise ValueError(
            f'"{value}" is not a valid secret name; use spider arguments, such as ["api_key"]'
        )
    return value


def _schedule_name(value: str) -> str:
    if not SCHEDULE_NAME.fullmatch(value):
        # HTTP clients send names too, with surrogates that no UTF-8 reply can repeat.
        printable = value.encode("utf-8", "backslashreplace").decode()
        raise ValueError(
            f'"{printable}" is not a valid schedule name; use words of letters, digits, "_" and "-"'
        )
    return value


def duration(value: Any) -> float:
    """Return the seconds of a duration such as "10m"."""
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError(
            f"{format_value(value)} is not a valid duration; use a value such as"
            ' "30s", "10m", "2h" or "90d"'
        )
    return float(match[1]) * SECONDS_PER_UNIT[match[2]]


def _tolerance(value: Any) -> int | float:
    """Validate a count, or a share from 0.0 to 1.0."""
    is_count = type(value) is int and value >= 0
    is_share = type(value) is float and 0 <= value <= 1
    if not (is_count or is_share):
        raise ValueError(
            f"{format_value(value)} is not a valid tolerance; use a count such as 10, or a share"
            " from 0.0 to 1.0 such as 0.01"
        )
    return float(value) if is_share else int(value)


def _for_each(value: Any) -> str | list[str]:
    """Validate a kind's name, or a list of words."""
    if isinstance(value, str) and value:
        return value
    words = value if isinstance(value, list) else []
    if not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(
            f"{format_value(value)} is not a valid for_each; use a kind's name, or a list such as"
            ' ["a", "b"]'
        )
    _require_unique(words)
    return list(words)


def _sorted_unique(words: list[str]) -> list[str]:
    """Sort the words: their order has no meaning, so a new order is not a change."""
    _require_unique(words)
    return sorted(words)


def _hosts(words: list[str]) -> list[str]:
    """Validate host names with or without a port."""
    for word in words:
        parse_host(word)
    return _sorted_unique(words)


def _require_unique(words: list[str]) -> None:
    for word in words:
        if words.count(word) > 1:
            raise ValueError(f'"{word}" is listed twice; remove one of the two')


def _conditions(value: Any) -> dict[str, list[Any]]:
    """Validate fields of an item, each with a value or with a list of values."""
    listed = {name: part if isinstance(part, list) else [part] for name, part in value.items()}
    for name, values in listed.items():
        if not values or not all(isinstance(part, str | int | float) for part in values):
            raise ValueError(
                f"{format_value(value[name])} is not a valid value of {name}; write text, a number"
                ' or a boolean, or a list such as ["a", "b"]'
            )
    return listed


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _base_url(value: str) -> str:
    if not BASE_URL.fullmatch(value):
        raise ValueError(
            f'"{value}" is not a valid base_url; use an absolute URL such as'
            " https://example.com/fuel"
        )
    return value


def format_value(value: Any) -> str:
    """Format *value* as TOML, truncated to 60 characters."""
    text = {True: "true", False: "false"}.get(value, "") if isinstance(value, bool) else ""
    text = text or (f'"{value}"' if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:59] + "…"


Name = Annotated[str, AfterValidator(_name)]
ScheduleName = Annotated[str, AfterValidator(_schedule_name)]
SecretName = Annotated[str, AfterValidator(_secret_name)]
Duration = Annotated[float, BeforeValidator(duration)]
Tolerance = Annotated[int | float | None, PlainValidator(_tolerance)]
Words = Annotated[str | list[str] | None, PlainValidator(_for_each)]
Conditions = Annotated[dict[str, Any], AfterValidator(_conditions)]
TextList = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]


class Table(BaseModel):
    """Table of a provider file. Unknown fields are refused, and "5" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProviderTable(Table):
    """`[provider]`: the data provider of the file."""

    name: Name
    title: str = ""
    base_url: Annotated[str, AfterValidator(_base_url)] | None = None
    max_running: Positive | None = None
    secrets: list[SecretName] = []


class TolerateTable(Table):
    """`tolerate`: failures that a done attempt may have, as counts or as shares up to 1.0."""

    rejected: Tolerance = None
    failed_requests: Tolerance = None
    blocked_by_robots: Tolerance = None
    truncated: Tolerance = None
    without_length: Tolerance = None
    unreachable_robots: Tolerance = None
    dropped: Tolerance = None
    removed: Tolerance = None
    duplicates: Tolerance = None


class BackoffTable(Table):
    """`backoff`: seconds a failed instance waits, doubled by each failure up to `cap`."""

    base: Duration = 10.0
    cap: Duration = 600.0

    @model_validator(mode="after")
    def _check_cap(self) -> "BackoffTable":
        if self.cap < self.base:
            raise ValueError("cap is shorter than base; use a cap of at least the base")
        return self


class RefreshTable(Table):
    """`refresh`: time for which a read record stays fresh; the field `by` identifies the record."""

    every: Duration
    by: str


class KindTable(Table):
    """`kinds` of an operation: one of several sorts of items of a spider without record types."""

    kind: str
    key: TextList
    fields: dict[str, str] = {}
    index: list[TextList] = []
    unique: list[TextList] = []
    untracked: list[str] = []
    empty_is_null: bool = False
    item: str | None = None
    when: Conditions = {}

    def rules(self) -> dict[str, Any]:
        """Return the rules by which items become records of the kind."""
        rules = {"empty_is_null": self.empty_is_null, "item": self.item, "when": self.when}
        return {name: value for name, value in rules.items() if value}


class OperationTable(Table):
    """`[[scheme.operation]]`, or a name in a scheme's `operations`."""

    name: Name
    spider: str = ""
    executor: Literal["scrapy", "external"] = "scrapy"
    arguments: dict[str, str] = {}
    for_each: Words = None
    standalone_arguments: Annotated[list[str], AfterValidator(_sorted_unique)] = []
    hosts: Annotated[list[str], AfterValidator(_hosts)] = []
    mode: Literal["snapshot", "incremental"] = "snapshot"
    isolate: bool = False
    tags: Annotated[list[Name], AfterValidator(_sorted_unique)] = []
    tolerate: TolerateTable = TolerateTable()
    min_results: Annotated[int, Field(ge=0)] = 1
    timeout: Duration = 3600.0
    start_timeout: Duration = 120.0
    stall_timeout: Duration = 600.0
    backoff: BackoffTable = BackoffTable()
    keep: Duration | None = None
    overlap: Duration | None = None
    refresh: RefreshTable | None = None
    kind: str | None = None
    key: TextList | None = None
    fields: dict[str, str] = {}
    index: list[TextList] = []
    unique: list[TextList] = []
    untracked: list[str] = []
    empty_is_null: bool = False
    kinds: list[KindTable] = []

    @property
    def spider_name(self) -> str:
        """Return the operation's spider, by default the spider of the operation's name."""
        return self.spider or self.name


class SchemeTable(Table):
    """`[[scheme]]`: a scheme with either operations or `includes`."""

    name: Name
    version: Positive = 1
    max_errors: Positive = 5
    operations: list[Name] = []
    operation: list[OperationTable] = []
    includes: list[str] = []
    after: str | None = None


class ScheduleTable(Table):
    """`[[schedule]]`: due times of a scheme."""

    name: ScheduleName
    scheme: str
    cron: str
    timezone: str = "UTC"
    arguments: dict[str, str] = {}
    catch_up: Literal["latest", "none"] = "latest"
    enabled: bool = True


class ProviderFile(Table):
    """All tables of a provider file."""

    provider: ProviderTable
    scheme: list[SchemeTable] = []
    schedule: list[ScheduleTable] = []
