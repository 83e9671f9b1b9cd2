"""Secrets: read from the environment only, and masked in logs and stored text."""

import base64
import html
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus, urlencode

import pytest
from pydantic import BaseModel
from scrapy.settings import Settings
from w3lib.http import basic_auth_header

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


def units(text: str, form: str) -> str:
    """Write the UTF-16 units of *text* in the form of an escape."""
    digits = text.encode("utf-16-be").hex()
    return "".join(form.format(digits[i : i + 4]) for i in range(0, len(digits), 4))


@pytest.mark.parametrize(
    "spelled",
    [
        KEY.upper(),
        KEY.lower(),
        KEY.swapcase(),
        quote(KEY.upper(), safe=""),
        units(KEY, "\\u{}"),
        units(KEY, "\\u{}").upper().replace("\\U", "\\u"),
        units(KEY, "%u{}"),
        json.dumps(units(KEY, "\\u{}")).strip('"'),
        json.dumps(KEY)[1:-1].replace("/", "\\/"),
        "".join(f"\\U{ord(letter):08x}" for letter in KEY),
        "".join(f"\\u{{{ord(letter):X}}}" for letter in KEY),
        "".join(f"\\x{byte:02X}" for byte in KEY.encode()),
        "".join(f"\\{byte:03o}" for byte in KEY.encode()),
        "".join(f"&#{ord(letter)};" for letter in KEY),
        "".join(f"&#x{ord(letter):X};" for letter in KEY),
        "".join(f"&#0{ord(letter)};" for letter in KEY),
        "".join(f"&amp;#{ord(letter)};" for letter in KEY),
        html.escape(html.escape(KEY)),
        html.escape(json.dumps(KEY)[1:-1]),
        quote(json.dumps(KEY)[1:-1], safe=""),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        KEY.encode().hex(":"),
        KEY.encode().hex(" "),
        ", ".join(f"0x{byte:02x}" for byte in KEY.encode())[2:],
        KEY.encode("utf-16-le").hex(),
    ],
)
def test_escaped_or_recoded_secret_is_masked(known: dict[str, str], spelled: str) -> None:
    masked = redact(f"token <{spelled}> refused")
    assert masked in ("token <***> refused", "token <0x***> refused")


@pytest.mark.parametrize("secret", ["S3cret", "pass/word+1", "ünïcode-ß", KEY])
@pytest.mark.parametrize("before", ["", "u:", "me:", "user:", '{"key": "'])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_secret_within_base64_is_masked(
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
    before: str,
    encode: Callable[[bytes], bytes],
) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", secret)
    read_secrets("a", ["one"])
    for encoding in ("utf-8", "latin-1", "utf-16-le"):
        try:
            encoded = encode((before + secret).encode(encoding)).decode()
        except UnicodeEncodeError:
            continue
        for written in (encoded, quote(encoded, safe=""), json.dumps(encoded).replace("/", "\\/")):
            masked = redact(f"Authorization: Basic {written} refused")
            assert "***" in masked
            left = re.findall(r"Basic \W*(\w*?)\*", masked)[0]
            assert len(left) <= len(before.encode(encoding)) * 4 / 3 + 1


def test_basic_credentials_of_scrapy_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_USER", "müller")
    monkeypatch.setenv("CATLOG_SECRET_A_PASSWORD", "p4ssword")
    read_secrets("a", ["user", "password"])
    header = basic_auth_header("müller", "p4ssword")
    assert redact(str(header)) not in str(header)
    assert "cDRzc3" not in redact(str(header))


def test_base64_with_line_breaks_is_masked(known: dict[str, str]) -> None:
    for written in (
        base64.encodebytes(b"x" * 50 + KEY.encode()).decode(),
        json.dumps(base64.encodebytes(b"x" * 50 + KEY.encode()).decode()),
    ):
        assert base64.b64encode(KEY.encode()).decode()[12:30] not in redact(written)
        assert "***" in redact(written)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("sent S3cret-Tok", "sent ***"),
        ("sent s3CRET-TOKE", "sent ***"),
        ("'S3cret-To…' is not valid", "'***…' is not valid"),
        ("'S3cret-Tok...' is not valid", "'***...' is not valid"),
        ("{'key': 'S3cret-Toke'", "{'key': '***'"),
        ("GET /?key=S3cret%2DTok", "GET /?key=***"),
        ("sent S3cr", "sent S3cr"),
        ("the S3cret- of success", "the S3cret- of success"),
    ],
)
def test_secret_that_is_cut_is_masked(
    monkeypatch: pytest.MonkeyPatch, text: str, masked: str
) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "S3cret-Token")
    read_secrets("a", ["one"])
    assert redact(text) == masked


def test_each_line_of_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "-----BEGIN-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n--")
    read_secrets("a", ["one"])
    assert redact("line 2: MIIEvQIBADAN") == "line 2: ***"
    assert redact("line 3: BgkqhkiG9w0B, end") == "line 3: ***, end"


def test_record_with_a_word_like_a_secret_is_kept(known: dict[str, str]) -> None:
    """Only logs mask other cases and cut secrets: a record would be rejected."""
    assert find_secret_in({"user": "catlog"}, '{"title": "Catlog of 1973"}') is None
    assert find_secret_in({"user": "catlogue"}, '{"title": "catlog') is None
    assert find_secret_in({"user": "catlog"}, base64.b64encode(b"x:catlog").decode()) == "user"


def test_programs_that_need_no_secret_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATLOG_SECRET_A_ONE", "abcd")
    environment = secrets.environment_without_secrets()
    assert "CATLOG_SECRET_A_ONE" not in environment
    assert environment["PATH"]


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
