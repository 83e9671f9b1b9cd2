"""URLs in arguments: only places below base_url or on a listed host are allowed."""

import pytest

from catlog_scrapy.scheduling.argument_urls import AllowedPlaces, parse_host

PLACES = AllowedPlaces.of(["http://shop.example/fuel"], ["cdn.example.com", "img.example:8443"])


@pytest.mark.parametrize(
    "text",
    [
        "http://shop.example/fuel",
        "http://shop.example/fuel/",
        "http://shop.example/fuel/a/b?next=http://other.example/#x",
        "http://shop.example/fuel?page=2",
        "HTTP://SHOP.Example./fuel/a b/ж",
        "http://shop.example:80/fuel/x",
        "https://shop.example/fuel/x",
        "http://shop.example/fuel/x/../y",
        "https://cdn.example.com/any/path",
        "https://img.example:8443/",
        "1973",
        "a/b/c",
        "/category/a",
        "sku:12",
        "12:30",
        "2026-01-01T00:00:00Z",
        "Keepsake: a bell",
        "",
    ],
)
def test_argument_below_base_url_on_a_listed_host_or_without_a_url_is_allowed(text: str) -> None:
    assert PLACES.mistake(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "data:text/html,<page>",
        "DATA:text/html,<page>",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "ftp://shop.example/fuel",
        "javascript:alert(1)",
        "view-source:http://shop.example/fuel",
        "http://other.example/fuel",
        "http://shop.example.other.example/fuel",
        "http://xshop.example/fuel",
        "http://shop.example:8080/fuel",
        "http://shop.example/fuels",
        "http://shop.example/fuel/../admin",
        "http://shop.example/fuel/%2e%2e/admin",
        "http://shop.example/fuel/%252e%252e%252fadmin",
        "http://shop.example/fuel/..%5cadmin",
        "http://shop.example/fuel/..;/admin",
        "http://user@shop.example/fuel",
        "http://shop.example@other.example/fuel",
        "http://shop.example%40other.example/fuel",
        "http://shop.example\\@other.example/fuel",
        "http://other.example\\.shop.example/fuel",
        "http:\\\\other.example/fuel",
        "http:/other.example",
        "http:other.example",
        "//other.example/fuel",
        "\\\\other.example",
        "/\\other.example",
        " http://other.example/",
        "\u2028http://other.example/",
        "\x00http://other.example/",
        "ht\ttp://other.example/",
        "http%3A//other.example/",
        "http%253A//other.example/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://①②⑦.0.0.1/",
        "http://ｏther.example/",
        "https://cdn.example.com:8443/",
        "https://img.example/",
        "http://shop.example/fuel\n",
        "wss://other.example",
    ],
)
def test_argument_that_some_parser_reads_as_a_url_elsewhere_is_refused(text: str) -> None:
    assert PLACES.mistake(text)


def test_without_base_url_and_hosts_any_url_is_refused() -> None:
    nowhere = AllowedPlaces.of([None], [])
    assert nowhere.mistake("https://shop.example/") is not None
    assert nowhere.mistake("shop") is None


def test_international_host_is_compared_in_canonical_form() -> None:
    places = AllowedPlaces.of(["https://bücher.example/"], [])
    assert places.mistake("https://xn--bcher-kva.example/1") is None
    assert places.mistake("https://BÜCHER.example/1") is None
    assert places.mistake("https://bucher.example/1")


@pytest.mark.parametrize(
    "entry",
    ["https://cdn.example.com", "cdn.example.com/path", "*.example.com", "a@b.example", "", "a b"],
)
def test_entry_of_hosts_that_is_not_a_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a valid host"):
        parse_host(entry)


def test_refusal_says_what_to_do() -> None:
    assert PLACES.mistake("http://other.example/") == (
        "'http://other.example/' is not below the provider's base_url; add its host to `hosts` of"
        " the operation"
    )
