"""Secrets: read from the environment only, and masked in logs and stored text."""

import html
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, urlencode

import pytest
from pydantic import BaseModel
from scrapy.settings import Settings

from catlog_scrapy import redaction as secrets
from catlog_scrapy.addon import CatlogAddon
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.redaction import find_secret_in, read_secrets, redact
from catlog_scrapy.store.sql import clean

KEY = "p/ä ss+w\"o&r'd\\ж🔑%"


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget a test's secrets, which other tests may log."""
    former = logging.getLogRecordFactory()
    monkeypatch.setattr(secrets, "_known", secrets._KnownSecrets())
    yield
    logging.setLogRecordFactory(former)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("CATLOG_SECRET_MY_SHOP_API_KEY", KEY)
    return read_secrets("my-shop", ["api_key"])


def test_a_secret_comes_from_the_environment(known: dict[str, str]) -> None:
    assert known == {"api_key": KEY}
    assert read_secrets("my-shop", []) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "my-shop needs the secret 'api_key': set .* CATLOG_SECRET_MY_SHOP_API_KEY"),
        ("abc", "the secret in CATLOG_SECRET_MY_SHOP_API_KEY is too short .* use at least 4 char"),
    ],
)
def test_invalid_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("CATLOG_SECRET_MY_SHOP_API_KEY", value)
    with pytest.raises(ConfigurationError, match=message) as refused:
        read_secrets("my-shop", ["api_key"])
    assert "'abc'" not in str(refused.value)


class Said(BaseModel):
    key: str


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        quote(KEY),
        quote(KEY, safe=""),
        quote_plus(KEY),
        quote(KEY, safe="").lower(),
        quote(quote(KEY, safe="")),
        quote(quote(quote(KEY, safe=""))),
        urlencode({"k": KEY}).removeprefix("k="),
        json.dumps(KEY)[1:-1],
        json.dumps(KEY, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(json.dumps(KEY)))[7:-7],
        Said(key=KEY).model_dump_json()[8:-2],
        repr(KEY)[1:-1],
        repr(KEY.encode())[2:-1],
        html.escape(KEY),
        "".join(f"%{byte:02X}" for byte in KEY.encode()),
    ],
)
def test_every_encoding_of_a_secret_is_masked(known: dict[str, str], spelled: str) -> None:
    assert redact(f"GET /x?key={spelled}&more=1") == "GET /x?key=***&more=1"
    assert find_secret_in(known, f"before {spelled} after") == "api_key"


def test_stored_texts_are_masked(known: dict[str, str]) -> None:
    assert clean(f"HTTP 401 for http://x/?key={quote(KEY)}") == "HTTP 401 for http://x/?key=***"


def test_text_without_a_secret_is_unchanged(known: dict[str, str]) -> None:
    text = KEY[:-1] + " and 100 % of the rest"
    assert redact(text) == text
    assert find_secret_in(known, text) is None


def test_secrets_with_a_common_prefix_are_masked_completely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "abcd")
    monkeypatch.setenv("CATLOG_SECRET_A_TWO", "abcdefgh")
    read_secrets("a", ["one"])
    read_secrets("a", ["two"])
    assert redact("abcdefgh abcd") == "*** ***"


def test_no_log_record_holds_a_secret(
    known: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The handler and the formatter are the standard library's."""
    logger = logging.getLogger("tests.secrets")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.error("asked %s for %d", f"/x?key={quote(KEY)}", 3)
        logger.error("as %(key)s", {"key": KEY})
        logger.error(ValueError(KEY))
        try:
            raise ValueError(KEY)
        except ValueError:
            logger.exception("it %s", "failed", stack_info=True)
    finally:
        logger.removeHandler(handler)
    said = capsys.readouterr().out
    assert said.startswith("asked /x?key=*** for 3\nas ***\n***\nit failed\nTraceback")
    assert "ValueError: ***" in said
    assert KEY not in said
    assert quote(KEY) not in said


def test_log_record_factory_of_the_project_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*args: object, **kwargs: object) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)  # type: ignore[arg-type]
        record.request_id = 7
        return record

    logging.setLogRecordFactory(made)
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "abcd")
    read_secrets("a", ["one"])
    record = logging.getLogger("x").makeRecord("x", 30, "f", 1, "an %s", ("abcd",), None)
    assert (record.getMessage(), vars(record)["request_id"]) == ("an ***", 7)


def test_malformed_log_message_shows_no_secret(known: dict[str, str]) -> None:
    """Python prints a malformed record's message and arguments unformatted."""
    program = (
        "import logging\nfrom catlog_scrapy.redaction import read_secrets\n"
        "key = read_secrets('a', ['one'])['one']\n"
        "logging.warning('%d of ' + key, key)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"CATLOG_SECRET_A_ONE": "a very secret word"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--- Logging error ---" in ended.stderr
    assert "secret word" not in ended.stderr


def test_secret_is_not_copied_into_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "abcd")
    monkeypatch.setenv("CATLOG_CONCURRENCY", "7")
    settings = Settings()
    CatlogAddon.update_pre_crawler_settings(settings)
    assert settings.getint("CATLOG_CONCURRENCY") == 7
    assert "abcd" not in str(settings.copy_to_dict())
