"""Local demo sources: their requests, replies and state. Equal states give equal replies."""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

HTML = "text/html; charset=utf-8"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

# The years of the ornament shops.
YEARS = range(1973, 2021)


@dataclass(frozen=True)
class DemoRequest:
    """Request to a source. `path` is relative to the source, without slashes at its ends."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def parts(self) -> list[str]:
        """Return the path's parts: for an empty path, a single empty part."""
        return self.path.split("/")


@dataclass(frozen=True)
class DemoReply:
    """Reply of a source."""

    body: bytes
    content_type: str = HTML
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """State of all sources.

    `step` counts changes; each source's module describes the changes. `years` are the years that
    the ornament shops know. `fuel_delay` is the delay of the fuel stations in seconds.
    """

    step: int = 0
    years: Collection[int] = YEARS
    fuel_delay: float = 4.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than until the server stops."""
        self.stopping.wait(seconds)


@dataclass(frozen=True)
class DemoSource:
    """Source below `/name`, declared as `provider`.

    `respond` returns None for an unknown path. Many threads call it at once.
    """

    name: str
    provider: str
    respond: Callable[[DemoRequest, World], DemoReply | None]


def json_reply(document: Any, status: int = 200) -> DemoReply:
    """Return *document* as a JSON reply."""
    return DemoReply(orjson.dumps(document), JSON, status)
