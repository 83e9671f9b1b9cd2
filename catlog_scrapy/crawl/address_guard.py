"""Address guard: refuses requests of an attempt to places that its arguments or network forbid."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.utils.httpobj import urlparse_cached
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from catlog_scrapy.scheduling.argument_urls import (
    DEFAULT_PORTS,
    MAX_DECODINGS,
    AllowedPlaces,
    canonical_host,
)

Network = Literal["public", "private", "link-local", "loopback"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Parts of an argument that may be a host name.
WORD = re.compile(r"[^\s/\\?#@:,;\"'<>()\[\]{}|=&]+")
# Its addresses, such as 0.0.0.0, connect to this machine, as does ::.
THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
# Prefixes of IPv6 addresses that lead to an IPv4 address in their last bytes (RFC 6052, RFC 8215).
TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class AddressRefused(Exception):
    """Request to an address that the attempt must not read.

    The message never depends on what the address would have answered.
    """


class AddressGuard:
    """Check of every request of an attempt, redirects, robots.txt and media included.

    A host that an argument of the load names must be allowed, as only the spider knows how it
    makes URLs of its arguments. An address of a private network must be in the same kind of
    network as an allowed host, or as a host that the spider's class names.
    """

    def __init__(
        self, places: AllowedPlaces, given: Iterable[str], spidercls: type[Spider] = Spider
    ) -> None:
        self.places = places
        self.own_hosts = places.names | hosts_of_class(spidercls)
        self.given = [_decoded(text).lower() for text in given]
        self.words = {word.strip(".") for text in self.given for word in _host_words(text)} - {""}
        self._networks: dict[str, set[Network]] = {}
        self._passed: set[tuple[str, int, bool] | str] = set()

    async def check(self, request: Request) -> None:
        """Raise AddressRefused for a request that must not be sent."""
        host, port = _origin(request)
        by_proxy = bool(request.meta.get("proxy"))
        if not host or (host, port, by_proxy) in self._passed:
            return
        if not self.places.contains_origin(host, port):
            self._require_not_named(host, port, request)
        networks = await self._networks_of(host, by_proxy=by_proxy)
        await self._require_own_network(networks, host)
        if networks or by_proxy:  # a name that cannot be resolved now may be resolved later
            self._passed.add((host, port, by_proxy))

    async def check_response(self, request: Request, response: Response) -> None:
        """Raise AddressRefused for a response from a forbidden address.

        A name may have resolved to another address than before, and a browser follows redirects by
        itself.
        """
        address = str(response.ip_address or "")
        if address and address not in self._passed and not request.meta.get("proxy"):
            networks = {network_of(ipaddress.ip_address(address.partition("%")[0]))}
            await self._require_own_network(networks, _origin(response)[0])
            self._passed.add(address)

    def _require_not_named(self, host: str, port: int, request: Request) -> None:
        written = (urlparse_cached(request).hostname or "").lower()
        is_named = any(
            name == word or ("." in word and name.endswith(word))
            for word in self.words
            for name in {host, written}
        ) or (":" in host and any(host in text for text in self.given))
        # Another port of an allowed host.
        is_named |= host in self.places.names and any(f":{port}" in text for text in self.given)
        if is_named:
            raise AddressRefused(
                f"an argument of the load names {host}:{port}, which is not below the provider's"
                " base_url; add it to `hosts` of the operation"
            )

    async def _require_own_network(self, networks: Collection[Network], host: str) -> None:
        foreign = set(networks) - {"public"}
        if foreign and not foreign <= await self._own_networks():
            raise AddressRefused(
                f"{host} is an address of a private network, and the provider's base_url is not;"
                " add it to `hosts` of the operation if this is intended"
            )

    async def _own_networks(self) -> set[Network]:
        """Return the networks of the provider's and the spider's own hosts."""
        return {
            network
            for name in self.own_hosts
            for network in await self._networks_of(name, by_proxy=False)
        }

    async def _networks_of(self, host: str, *, by_proxy: bool) -> set[Network]:
        """Return the networks of a host's addresses; empty for a name that cannot be resolved.

        A proxy resolves names itself.
        """
        if (address := literal_address(host)) is not None:
            return {network_of(address)}
        if by_proxy:
            return {"loopback"} if host == "localhost" else set()
        if not self._networks.get(host):
            self._networks[host] = {network_of(found) for found in await _resolve(host)}
        return self._networks[host]


def hosts_of_class(spidercls: type[Spider]) -> set[str]:
    """Return the hosts in `start_urls` and `allowed_domains` of a spider's class.

    Attributes of the spider itself may be arguments of a load.
    """
    urls = [getattr(spidercls, name, None) for name in ("start_urls", "allowed_domains")]
    words = [word for found in urls if isinstance(found, list | tuple | set) for word in found]
    hosts = set()
    for word in words:
        with suppress(ValueError):
            url = word if "//" in word else f"//{word}"
            hosts.add(canonical_host(urlsplit(url).hostname or ""))
    return hosts - {""}


def network_of(address: Address) -> Network:
    """Return the kind of network of an address, or of the IPv4 address in an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour or _translated(address)
        if address.teredo:
            embedded = address.teredo[1]
        if embedded is None and int(address) < 2**32 and int(address) > 1:
            embedded = ipaddress.IPv4Address(int(address))  # IPv4-compatible, long deprecated
        if embedded is not None:
            return network_of(embedded)
        if address.is_site_local:
            return "private"
    if address.is_loopback or address.is_unspecified or address in THIS_NETWORK:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    is_public = address.is_global and not address.is_multicast and not address.is_reserved
    return "public" if is_public else "private"


def literal_address(host: str) -> Address | None:
    """Return the address that *host* is, in any notation that resolvers take, or None for a name.

    Resolvers take 127.1, 2130706433, 0177.0.0.1 and 0x7f000001 for 127.0.0.1.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if any(address in network for network in TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _origin(message: Request | Response) -> tuple[str, int]:
    """Return the canonical host and the port of a URL; an empty host if it has none."""
    parsed = urlparse_cached(message)
    try:
        host = canonical_host(parsed.hostname or "")
        port = parsed.port or DEFAULT_PORTS.get(parsed.scheme, 0)
    except ValueError:
        raise AddressRefused(f"{parsed.netloc!r} is not a valid host") from None
    return host, port


def _host_words(text: str) -> Iterable[str]:
    """Return the words of *text* that may be host names, as written and in canonical form."""
    for word in WORD.findall(text):
        yield word
        try:
            yield canonical_host(word)
        except ValueError:
            continue


def _decoded(text: str) -> str:
    for _ in range(MAX_DECODINGS):
        text = unquote(text)
    return text


async def _resolve(host: str) -> list[Address]:
    """Resolve a name as the download handlers do, with Scrapy's cache; empty after a failure."""
    from twisted.internet import reactor

    receiver = _Receiver()
    resolver: Any = reactor.nameResolver
    resolver.resolveHostName(receiver, host)
    return await receiver.done


@implementer(IResolutionReceiver)
class _Receiver:
    """Receiver of a name's addresses from Twisted's resolver."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.done: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()

    def resolutionBegan(self, resolution: object) -> None:
        """Do nothing: the addresses follow."""

    def addressResolved(self, address: Any) -> None:
        """Take an address."""
        self.addresses.append(ipaddress.ip_address(address.host.partition("%")[0]))

    def resolutionComplete(self) -> None:
        """Hand over the addresses."""
        if not self.done.done():
            self.done.set_result(self.addresses)
