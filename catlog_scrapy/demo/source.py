"""What a local source is: it answers requests, and always the same in the same world."""

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
    """What came: `path` is below the source's own and has no slashes around it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def parts(self) -> list[str]:
        """The path's parts; of an empty path, one that is empty."""
        return self.path.split("/")


@dataclass(frozen=True)
class DemoReply:
    """What goes back."""

    body: bytes
    content_type: str = HTML
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class World:
    """All that an answer may depend on, besides its request.

    `step` counts the changes of the world: its sources say what each of them does. `years` are
    those that the ornament shops know, `fuel_delay` the seconds that the fuel stations take.
    """

    step: int = 0
    years: Collection[int] = YEARS
    fuel_delay: float = 4.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the server stops."""
        self.stopping.wait(seconds)


@dataclass(frozen=True)
class DemoSource:
    """A source below `/name`, which the declarations know as *provider*.

    `answer` is called by many threads at once; None where there is nothing.
    """

    name: str
    provider: str
    respond: Callable[[DemoRequest, World], DemoReply | None]


def json_reply(document: Any, status: int = 200) -> DemoReply:
    """*document* as JSON."""
    return DemoReply(orjson.dumps(document), JSON, status)
