"""Settings: their list, their values, and names that are not settings."""

import re
from pathlib import Path

import pytest
from scrapy.settings import Settings

import catlog_scrapy
from catlog_scrapy.config import (
    DEFAULTS,
    OTHER_VARIABLES,
    PATTERNS,
    SETTINGS,
    check,
    fill_in,
    unknown_names,
)
from catlog_scrapy.exceptions import ConfigurationError

SOURCES = Path(catlog_scrapy.__file__).parent
NAME = re.compile(r"\bCATLOG_[A-Z][A-Z_]*[A-Z]\b(?!_)")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings({"BOT_NAME": "shop"})


def test_every_setting_that_the_code_names_is_listed() -> None:
    families = tuple(pattern.prefix for pattern in PATTERNS)
    named = {
        (name, path.name)
        for path in SOURCES.rglob("*.py")
        for name in NAME.findall(path.read_text(encoding="utf-8"))
        if path.name != "config.py"
    }
    unlisted = {
        (name, file)
        for name, file in named
        if name not in {*DEFAULTS, *OTHER_VARIABLES} and not f"{name}_".startswith(families)
    }
    assert unlisted == set()


def test_every_setting_has_a_description_and_a_default_of_its_type() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.description, setting
        assert not setting.description.endswith("."), setting
        if setting.default is None:
            assert setting.default_text or setting.is_internal, setting
        else:
            assert type(setting.default) is setting.type, setting
            assert setting.type is not float or setting.default.is_integer(), setting
        setting.check(setting.default)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CATLOG_LEASE", "x", "CATLOG_LEASE is 'x'; use a number above 0, such as 60"),
        ("CATLOG_LEASE", "0", "CATLOG_LEASE is '0'; use a number above 0, such as 60"),
        ("CATLOG_LEASE", "inf", "use a number above 0"),
        ("CATLOG_LEASE", "nan", "use a number above 0"),
        ("CATLOG_LEASE", None, "use a number above 0"),
        ("CATLOG_GRACE", "-1", "CATLOG_GRACE is '-1'; use a number from 0 on, such as 10"),
        ("CATLOG_CONCURRENCY", "1.5", "use a whole number above 0, such as 4"),
        ("CATLOG_API_BODY", "much", "use a whole number above 0, such as 1048576"),
    ],
)
def test_unusable_number_is_refused(
    settings: Settings, name: str, value: str | None, message: str
) -> None:
    fill_in(settings, {})
    settings.set(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        check(settings)


def test_environment_overrides_the_project_but_not_the_command_line(settings: Settings) -> None:
    settings.set("CATLOG_LEASE", 5, "project")
    settings.set("CATLOG_POLL", 6, "cmdline")
    fill_in(settings, {"CATLOG_LEASE": "7", "CATLOG_POLL": "8", "CATLOG_BASE_URL_SHOP": "http://x"})
    assert settings.getfloat("CATLOG_LEASE") == 7
    assert settings.getfloat("CATLOG_POLL") == 6
    assert settings["CATLOG_BASE_URL_SHOP"] == "http://x"
    check(settings)


def test_environment_overrides_a_setting_of_the_projects_own(settings: Settings) -> None:
    settings.set("CATLOG_MYOWN", "3", "project")
    environment = {"CATLOG_MYOWN": "5", "CATLOG_PORT": "tcp://10.0.0.1:80"}
    fill_in(settings, environment)
    assert settings["CATLOG_MYOWN"] == "5"
    assert "CATLOG_PORT" not in settings
    assert unknown_names(settings, environment) == [
        "CATLOG_PORT is not a setting of catlog; did you mean CATLOG_API_PORT?"
    ]


def test_secrets_and_keys_of_clients_do_not_become_settings(settings: Settings) -> None:
    environment = {"CATLOG_SECRET_SHOP_TOKEN": "s3cret", "CATLOG_KEY": "s3cret"}
    fill_in(settings, environment)
    assert "s3cret" not in map(str, settings.copy_to_dict().values())
    assert unknown_names(settings, environment) == []


def test_unknown_names_are_reported_with_a_likely_correction(settings: Settings) -> None:
    fill_in(settings, {})
    settings.set("CATLOG_COLOUR", "red", "project")
    assert unknown_names(settings, ["CATLOG_LAESE", "CATLOG_LEASE", "PATH"]) == [
        "CATLOG_COLOUR is not a setting of catlog; correct the name, or unset it",
        "CATLOG_LAESE is not a setting of catlog; did you mean CATLOG_LEASE?",
    ]


def test_computed_defaults_lie_beside_scrapy_cfg(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "scrapy.cfg").write_text("[settings]\n")
    fill_in(settings, {})
    assert settings["CATLOG_HOME"] == str(tmp_path / ".catlog")
    assert settings["CATLOG_PROVIDERS"] == str(tmp_path / "providers")
    assert settings["CATLOG_RESOURCES"] == str(tmp_path / "resources.toml")
    assert settings["CATLOG_NODE"]
