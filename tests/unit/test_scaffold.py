"""`scrapy genoperation`: valid names, and the provider of a URL."""

from pathlib import Path

import pytest
from scrapy.settings import Settings

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.scaffold import check_name, find_target

WOOD = """
[provider]
name = "wood"
base_url = "https://wood.example/shop"
"""
NOWHERE = """
[provider]
name = "nowhere"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "of_wood.toml").write_text(WOOD)
    (tmp_path / "nowhere.toml").write_text(NOWHERE)
    return Settings({"CATLOG_PROVIDERS": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Trees", "is not a valid name of a spider and its view; use lower-case letters"),
        ("tr-ees", "is not a valid name"),
        ("../trees", "is not a valid name"),
        ("деревья", "is not a valid name"),
        ("1st", "a letter first"),
        ("", "is not a valid name"),
        ("t" * 64, "at most 63"),
        ("class", "is reserved by Python or Scrapy"),
        ("none", "is reserved by Python or Scrapy"),
        ("request", "is reserved by Python or Scrapy"),
        ("json_document", "is reserved by Python or Scrapy"),
        ("shop", "is the name of the project"),
    ],
)
def test_invalid_operation_name_is_refused(name: str, expected: str) -> None:
    check_name("trees_2", "shop")
    with pytest.raises(NotPossible, match=expected):
        check_name(name, "shop")


@pytest.mark.parametrize(
    ("url", "provider", "base_url", "path"),
    [
        ("https://wood.example/shop/a/b?c=1#d", "wood", "https://wood.example/shop", "a/b?c=1"),
        ("wood.example/shop", "wood", "https://wood.example/shop", ""),
        ("https://wood.example/shops", "wood_example", "https://wood.example", "shops"),
        ("http://www.a-b.example:81/x", "a_b_example", "http://www.a-b.example:81", "x"),
        ('https://a.example/"{x}"', "a_example", "https://a.example", "%22%7Bx%7D%22"),
        ("https://ель.example/ёлка", "xn_e1am5c_example", "https://xn--e1am5c.example", None),
    ],
)
def test_provider_is_found_by_the_url_of_a_page(
    settings: Settings, url: str, provider: str, base_url: str, path: str | None
) -> None:
    target = find_target(settings, url, None)
    assert (target.provider, target.base_url) == (provider, base_url)
    assert path is None or target.path == path
    assert target.path.isascii()
    assert target.file.name == ("of_wood.toml" if provider == "wood" else f"{provider}.toml")


@pytest.mark.parametrize(
    ("url", "provider", "expected"),
    [
        ("ftp://a.example/", None, "is not a valid URL; use an absolute URL"),
        ("https:///x", None, "is not a valid URL"),
        ("https://a:secret@a.example/", None, "contains a user name or password"),
        ("https://a.example/", "a/b", '"a/b" is not a valid provider name'),
        (
            "https://a.example/",
            "wood",
            "which has the base_url https://wood.example/shop; name another",
        ),
        ("https://a.example/", "nowhere", "which has no base_url; name another"),
        ("https://a.example/", "of_wood", "of_wood.toml declares another provider"),
        ("https://a.example:99999/", None, "is not a valid URL: Port out of range"),
        ("https://[::1/", None, "is not a valid URL: "),
    ],
)
def test_unusable_target_of_an_operation_is_refused(
    settings: Settings, url: str, provider: str | None, expected: str
) -> None:
    with pytest.raises(NotPossible, match=expected):
        find_target(settings, url, provider)
