"""Address guard: networks, notations of addresses, and hosts that arguments name."""

import asyncio

import pytest
from scrapy import Request, Spider
from scrapy.http import Response

from catlog_scrapy.crawl.address_guard import (
    AddressGuard,
    AddressRefused,
    hosts_of_class,
    literal_address,
    network_of,
)
from catlog_scrapy.scheduling.argument_urls import AllowedPlaces

PUBLIC = "http://93.184.216.34/fuel"


def guard(*given: str, base: str | None = PUBLIC, hosts: tuple[str, ...] = ()) -> AddressGuard:
    return AddressGuard(AllowedPlaces.of([base], hosts), given)


def refusal(guarded: AddressGuard, url: str, **meta: str) -> str | None:
    """Return the message with which the guard refuses a request, None if it lets it pass."""
    try:
        asyncio.run(guarded.check(Request(url, meta=dict(meta))))
    except AddressRefused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("93.184.216.34", "public"),
        ("2606:4700::1111", "public"),
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("127.1", "loopback"),
        ("2130706433", "loopback"),
        ("0x7f000001", "loopback"),
        ("0x7f.0.0.1", "loopback"),
        ("0177.0.0.1", "loopback"),
        ("017700000001", "loopback"),
        ("0", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("0xa9fea9fe", "link-local"),
        ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("10.0.0.1", "private"),
        ("012.0.0.1", "private"),
        ("172.16.1.1", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("224.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("fd00:ec2::254", "private"),
        ("fec0::1", "private"),
    ],
)
def test_network_of_an_address_in_any_notation(host: str, network: str) -> None:
    address = literal_address(host)
    assert address is not None
    assert network_of(address) == network


@pytest.mark.parametrize("host", ["shop.example", "localhost", "1.2.3.4.5", "0x", "a.1"])
def test_name_is_not_taken_for_an_address(host: str) -> None:
    assert literal_address(host) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5432/",
        "http://127.0.0.1:1/",
        "http://2130706433/",
        "http://0x7f.1:8000/",
        "http://[::1]:6379/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.5/",
        "https://192.168.1.1/",
        "http://user@127.0.0.1/",
    ],
)
def test_private_address_is_refused_for_a_public_provider(url: str) -> None:
    assert "private network" in str(refusal(guard(), url))


def test_refusal_of_an_address_does_not_depend_on_the_port() -> None:
    ports = {refusal(guard(), f"http://127.0.0.1:{port}/") for port in (22, 80, 5432, 65_000)}
    assert len(ports) == 1


def test_private_provider_reads_its_own_kind_of_network_only() -> None:
    internal = guard(base="http://10.1.1.1:8000/")
    assert refusal(internal, "http://10.1.1.2/cdn") is None
    assert refusal(internal, "http://127.0.0.1/")
    assert refusal(internal, "http://169.254.169.254/")
    local = guard(base="http://127.0.0.1:8765/")
    assert refusal(local, "http://127.0.0.1:8765/x") is None
    assert refusal(local, "http://10.1.1.1/")


def test_listed_private_host_allows_its_network() -> None:
    assert refusal(guard(hosts=("10.0.0.9",)), "http://10.0.0.9/") is None


@pytest.mark.parametrize(
    ("argument", "url"),
    [
        ("93.184.216.35", "http://93.184.216.35/"),
        ("@93.184.216.35/", "http://x@93.184.216.35/"),
        ("http://93.184.216.34/fuel?next=http://93.184.216.35/", "http://93.184.216.35/"),
        ("one two 93.184.216.35", "http://93.184.216.35/"),
        ("http%3A%2F%2F93.184.216.35%2F", "http://93.184.216.35/"),
        ("1572395043", "http://1572395043/"),
        (":8080/", "http://93.184.216.34:8080/"),
        ("[2606:4700::1111]", "http://[2606:4700::1111]/"),
    ],
)
def test_host_or_port_that_an_argument_names_is_refused(argument: str, url: str) -> None:
    assert "an argument of the load names" in str(refusal(guard(argument), url))


@pytest.mark.parametrize(
    ("argument", "url"),
    [
        (".evil.example", "http://shop.example.evil.example/"),
        ("evil.example", "http://www.evil.example/"),
        ("EVIL.example.", "http://evil.example/"),
        ("bücher.example", "http://xn--bcher-kva.example/"),
    ],
)
def test_name_that_an_argument_completes_is_refused_before_it_is_resolved(
    argument: str, url: str
) -> None:
    refused = refusal(guard(argument, base="http://shop.example/"), url)
    assert "an argument of the load names" in str(refused)


def test_argument_that_repeats_the_provider_host_or_is_a_word_refuses_nothing() -> None:
    guarded = guard("http://93.184.216.34/fuel/1", "1973", "34", "com")
    assert refusal(guarded, "http://93.184.216.34/fuel/1") is None
    assert refusal(guarded, "http://93.184.216.40/picture") is None


def test_proxy_resolves_names_but_addresses_are_checked() -> None:
    proxy = "http://10.0.0.3:3128"
    assert refusal(guard(), "http://shop.example/", proxy=proxy) is None
    assert refusal(guard(), "http://127.0.0.1/", proxy=proxy)
    assert refusal(guard(), "http://localhost/", proxy=proxy)


def test_response_from_a_private_address_is_refused() -> None:
    import ipaddress

    request = Request("http://93.184.216.34/")
    rebound = Response(request.url, ip_address=ipaddress.ip_address("127.0.0.1"))
    with pytest.raises(AddressRefused):
        asyncio.run(guard().check_response(request, rebound))


def test_hosts_of_a_class_are_those_of_its_own_attributes() -> None:
    class Shop(Spider):
        name = "shop"
        start_urls = ("http://10.0.0.1:81/x",)
        allowed_domains = ["shop.example", "10.0.0.2"]

    assert hosts_of_class(Shop) == {"10.0.0.1", "shop.example", "10.0.0.2"}
    assert hosts_of_class(Spider) == set()
