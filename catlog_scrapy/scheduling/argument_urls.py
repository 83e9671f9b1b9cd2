"""URLs in spider arguments: an argument points below `base_url`, or to a listed host.

Arguments come from clients. A URL elsewhere would store foreign data under the provider's name, or
read what only this machine can reach. Declarations, the API, commands and each attempt apply the
same rules.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

import idna

DEFAULT_PORTS = {"http": 80, "https": 443}
# The only form that all parsers of URLs read alike: no user, no backslash, no encoded host.
PLAIN_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[^\s/?#@:\\\[\]%]+)(?::(\d{1,5}))?(?:/([^?#\\]*)|(?=[?#]|$))"
    r"([?#].*)?",
    re.IGNORECASE,
)
# Beginnings that some parser reads as a URL, or as a reference to another host.
URL_START = re.compile(
    r"[a-z][a-z0-9+.-]*:(?=[/\\])|[/\\]{2}"
    r"|(?:https?|wss?|ftps?|sftp|file|data|s3|gs|blob|about|javascript|view-source|jar|gopher|dict"
    r"|ldaps?|tftp|telnet|ssh|unix):",
    re.IGNORECASE,
)
# Characters that parsers of URLs drop, or strip from the ends.
IGNORED_CHARS = re.compile(r"[\x00-\x20\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202f\u2060\ufeff]+")
# An entry of `hosts`: a host name or an address, with or without a port.
HOST_ENTRY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s/?#@:\\\[\]%*,]+)(?::(\d{1,5}))?")
MAX_DECODINGS = 5


class MisplacedUrl(ValueError):
    """URL of an argument that points outside of the allowed places; another try changes nothing."""


@dataclass(frozen=True)
class WebAddress:
    """Host, port and path of an HTTP URL, in canonical form."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a plain HTTP URL. Raises ValueError for any other text."""
        match = PLAIN_URL.fullmatch(text)
        if match is None or not text.isprintable():
            raise ValueError("the text is not a plain http or https URL")
        scheme, host, port, path = match[1].lower(), match[2], match[3], match[4] or ""
        return cls(canonical_host(host), int(port or DEFAULT_PORTS[scheme]), _resolved(path))

    def has_origin(self, host: str, port: int) -> bool:
        """Return whether this is the origin of *host* and *port*; http and https are one site."""
        ports = {self.port, port}
        return self.host == host and (len(ports) == 1 or ports == {80, 443})

    def is_below(self, base: "WebAddress") -> bool:
        """Return whether the URL has the origin of *base*, and a path below that of *base*."""
        return base.has_origin(self.host, self.port) and (self.path + "/").startswith(
            base.path + "/"
        )


@dataclass(frozen=True)
class AllowedPlaces:
    """Places that the URLs of an operation's arguments may point to.

    `bases` are the provider's `base_url` as declared and as overridden; `hosts` are listed hosts
    with their ports.
    """

    bases: tuple[WebAddress, ...]
    hosts: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, base_urls: Iterable[str | None], hosts: Iterable[str]) -> Self:
        """Make the places of a provider's *base_urls* and an operation's *hosts*."""
        bases = []
        for url in filter(None, base_urls):
            with suppress(ValueError):
                bases.append(WebAddress.parse(url))
        return cls(tuple(bases), frozenset(place for host in hosts for place in parse_host(host)))

    @property
    def names(self) -> set[str]:
        """The names of all allowed hosts."""
        return {host for host, _ in self.hosts} | {base.host for base in self.bases}

    def contains(self, address: WebAddress) -> bool:
        """Return whether an argument may point to *address*."""
        return (address.host, address.port) in self.hosts or any(
            address.is_below(base) for base in self.bases
        )

    def contains_origin(self, host: str, port: int) -> bool:
        """Return whether the host and port are those of a base or of a listed host."""
        return (host, port) in self.hosts or any(base.has_origin(host, port) for base in self.bases)

    def mistake(self, text: str) -> str | None:
        """Return the reason to refuse an argument's *text*, or None."""
        if not names_url(text):
            return None
        try:
            if self.contains(WebAddress.parse(text)):
                return None
        except ValueError as error:
            return f"{shorten(text)} is not a URL that an argument may name ({error})"
        below = "below the provider's base_url" if self.bases else "on a host that is allowed"
        return f"{shorten(text)} is not {below}; add its host to `hosts` of the operation"


def parse_host(entry: str) -> list[tuple[str, int]]:
    """Return host and ports of an entry of `hosts`. Raises ValueError with the remedy."""
    match = HOST_ENTRY.fullmatch(entry)
    try:
        if match is None:
            raise ValueError
        host = canonical_host(match[1])
    except ValueError:
        raise ValueError(
            f'"{entry}" is not a valid host; use a name such as "cdn.example.com", or'
            ' "cdn.example.com:8443"'
        ) from None
    ports = [int(match[2])] if match[2] else DEFAULT_PORTS.values()
    return [(host, port) for port in ports]


def canonical_host(host: str) -> str:
    """Return *host* in lower case, in ASCII, without the dot of the root. Raises ValueError."""
    host = host.strip("[]").lower()
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()  # its errors are ValueErrors
    return host.removesuffix(".")


def names_url(text: str) -> bool:
    """Return whether some parser could read *text* as a URL or a reference to another host."""
    for _ in range(MAX_DECODINGS):
        if URL_START.match(IGNORED_CHARS.sub("", text)):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def shorten(text: str) -> str:
    """Quote *text* for a message: printable, and at most 100 characters."""
    return repr(text if len(text) <= 100 else text[:99] + "…")


def url_mistakes(places: AllowedPlaces, arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the reason for each argument that points outside of *places*."""
    found = {name: places.mistake(str(text)) for name, text in arguments.items()}
    return {name: mistake for name, mistake in found.items() if mistake}


def _resolved(path: str) -> str:
    """Decode *path*, and resolve `.` and `..` in it, as the most liberal server does."""
    for _ in range(MAX_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    # A segment with parameters, such as `..;x`, is `..` for some servers.
    segments = (segment.partition(";")[0] for segment in re.split(r"[/\\]", path))
    return posixpath.normpath("/" + "/".join(segments)).rstrip("/").replace("//", "/")
