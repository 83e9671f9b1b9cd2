"""Secrets of providers: reading them for spiders, and masking them in logs and stored text.

Secrets come from environment variables when a crawl starts. They are not settings, because Scrapy
copies, logs and shows settings. After a secret has been read, this process writes `***` instead of
its value into logs and the database.
"""

import base64
import html.entities
import json
import logging
import math
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from catlog_scrapy.exceptions import ConfigurationError

PREFIX = "CATLOG_SECRET_"
MASK = "***"
# Masking a shorter secret would mask parts of ordinary words.
MIN_SECRET_CHARS = 4
# A cut secret is recognized by at least half of its letters, and by at most so many.
MIN_KNOWN_CHARS = 6
MAX_KNOWN_CHARS = 24
# One or more backslashes, which URLs and HTML write in another way.
BACKSLASH = r"(?:\\|%(?:25)*5[cC]|&(?:amp;)*#(?:92|[xX]5[cC]);)+"
# Texts without these hold a secret only as it is, in hexadecimal, or in Base64.
ESCAPES = re.compile(r"[\\%&\n\r]")
LINE_BREAK = r"(?:[\r\n]|\\+[rn])*"
# Letters of Base64 that URLs and JSON write in another way.
BASE64_LETTERS = {"+": r"(?:[+-]|%2[bB])", "/": r"(?:\\*/|_|%2[fF])"}
NAMED_ENTITIES: dict[str, list[str]] = {}
for _name, _text in html.entities.html5.items():
    NAMED_ENTITIES.setdefault(_text, []).append(_name.removesuffix(";"))


def secret_variable(provider: str, name: str) -> str:
    """Return the name of the environment variable for a provider's secret."""
    return f"{PREFIX}{provider}_{name}".upper().replace("-", "_")


def secret_hint(provider: str, name: str) -> str:
    """Return the error text for a secret that was given by other means than the environment."""
    return (
        f"is a secret and must come from the environment variable {secret_variable(provider, name)}"
    )


def read_secrets(provider: str, names: Iterable[str]) -> dict[str, str]:
    """Return the values of a provider's secrets by name, and mask them from now on.

    Raises ConfigurationError for a secret that is missing or too short.
    """
    values = {}
    for name in names:
        variable = secret_variable(provider, name)
        # A value that was read from a file ends with a line end, which is not part of the secret.
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ConfigurationError(
                f"{provider} needs the secret {name!r}: set the environment variable {variable}"
                " where spiders run."
            )
        if len(value) < MIN_SECRET_CHARS:
            raise ConfigurationError(
                f"the secret in {variable} is too short to be masked in logs; use at least"
                f" {MIN_SECRET_CHARS} characters."
            )
        values[name] = value
    _known.add(values.values())
    return values


def environment_without_secrets() -> dict[str, str]:
    """Return this process's variables without secrets, for programs that need none."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def redact(text: str) -> str:
    """Return *text* with every secret of this process, in any encoding, replaced by `***`."""
    return _known.mask(text)


def find_secret_in(secrets: Mapping[str, str], text: str) -> str | None:
    """Return the name of a secret whose value *text* contains in any encoding, else None."""
    return next(
        (name for name, value in secrets.items() if _secret_pattern(value).search(text)), None
    )


class _KnownSecrets:
    """Secrets of this process, and the pattern that finds them."""

    def __init__(self) -> None:
        self.pattern: re.Pattern[str] | None = None
        self._traces: list[tuple[str, ...]] = []
        self._values: set[str] = set()
        self._lock = threading.Lock()

    def add(self, values: Collection[str]) -> None:
        """Mask these values too."""
        with self._lock:
            # A log writes the lines of a key, say, one by one.
            lines = {line.strip() for value in values for line in value.splitlines()}
            long = {line for line in lines if len(line) >= MIN_SECRET_CHARS}
            fresh = {*values, *long} - self._values
            if not fresh:
                return
            if not self._values:
                logging.setLogRecordFactory(_RedactingRecordFactory(logging.getLogRecordFactory()))
            self._values |= fresh
            # A secret may be the beginning of a longer one, which has to match first.
            longest_first = sorted(self._values, key=len, reverse=True)
            self._traces = [trace for value in longest_first for trace in _traces_of(value)]
            self.pattern = re.compile("|".join(map(_masking_pattern, longest_first)))

    def mask(self, text: str) -> str:
        """Return *text* with `***` for each secret; most texts show no trace of one."""
        if self.pattern is None:
            return text
        if not ESCAPES.search(text):
            lower = text.lower()
            if not any(all(part in lower for part in trace) for trace in self._traces):
                return text
        return self.pattern.sub(MASK, text)


_known = _KnownSecrets()


@lru_cache(maxsize=64)
def _secret_pattern(value: str) -> re.Pattern[str]:
    """Compile a pattern for *value* as written and in the encodings of programs and formats."""
    text = "".join(_letter_pattern(letter, any_case=False) for letter in value)
    return re.compile(_guarded([(text, _first_chars(value[0])), *_byte_forms(value)]))


@lru_cache(maxsize=64)
def _masking_pattern(value: str) -> str:
    """Return a pattern for *value* in any encoding and case, whole or cut.

    A text may have been cut before it came here: at its end, or before an ellipsis.
    """
    known = _known_length(value)
    begun, rest = (
        "".join(_letter_pattern(letter, any_case=True) for letter in part)
        for part in (value[:known], value[known:])
    )
    cut = r"|\S*?(?=…|\.\.\.|['\"]?\Z)" if rest else ""
    return _guarded([(f"{begun}(?:{rest}{cut})", _first_chars(value[0])), *_byte_forms(value)])


def _known_length(value: str) -> int:
    """Return the number of letters by which a cut *value* is recognized."""
    known = min(MAX_KNOWN_CHARS, max(MIN_KNOWN_CHARS, math.ceil(len(value) / 2)))
    return min(known, len(value))


def _traces_of(value: str) -> Iterator[tuple[str, ...]]:
    """Yield texts in lower case that stand together in each text with *value* without escapes."""
    words = re.findall(r"[!-~]+", value[: _known_length(value)])
    yield (max(words, key=len).lower(),) if words else ()
    for encoded in _encodings_of(value):
        yield tuple({f"{byte:02x}" for byte in encoded})
        for _, core in _base64_cores(encoded):
            yield tuple(re.findall("[a-z0-9]+", core[:8].lower()))


def _guarded(forms: Sequence[tuple[str, str]]) -> str:
    """Join patterns behind a look at the next character, which is quicker than trying each."""
    first = "".join(sorted({char for _, chars in forms for char in chars}))
    return f"(?=[{re.escape(first)}])(?:{'|'.join(pattern for pattern, _ in forms)})"


def _byte_forms(value: str) -> Iterator[tuple[str, str]]:
    """Yield patterns of *value* in Base64 and hexadecimal, with characters they may begin with."""
    for encoded in _encodings_of(value):
        yield from (_base64_form(first, core) for first, core in _base64_cores(encoded))
        digits = (f"(?i:{byte:02x})" for byte in encoded)
        first = f"{encoded[0]:02x}{encoded[0]:02X}"
        yield r"[\s:_,-]*(?:0x|\\+x)?".join(digits), first


def _encodings_of(value: str) -> Iterator[bytes]:
    """Yield *value* in UTF-8, Latin-1 and UTF-16.

    Scrapy encodes Basic credentials in Latin-1, Windows much else in UTF-16.
    """
    yield value.encode(errors="surrogateescape")
    for encoding in ("latin-1", "utf-16-le"):
        with suppress(UnicodeEncodeError):
            yield value.encode(encoding)


def _base64_cores(encoded: bytes) -> Iterator[tuple[int, str]]:
    """Yield what Base64 makes of bytes, with its position within a group of four characters.

    It depends on the number of bytes before. Characters at both ends also hold bits of what is
    around; they are left out.
    """
    for before in range(3):
        written = base64.b64encode(b"\0" * before + encoded).decode()
        first = math.ceil(before * 8 / 6)
        core = written[first : (before + len(encoded)) * 8 // 6]
        if len(core) >= MIN_SECRET_CHARS:
            yield first, core


def _base64_form(first: int, core: str) -> tuple[str, str]:
    """Return the pattern of a part of Base64, and the characters that it may begin with.

    A long line is broken between groups of four characters.
    """
    letters = [
        (LINE_BREAK if (first + position) % 4 == 0 and position else "")
        + BASE64_LETTERS.get(letter, letter)
        for position, letter in enumerate(core)
    ]
    return "".join(letters) + "={0,2}", {"+": "+-%", "/": "/_%\\"}.get(core[0], core[0])


def _first_chars(letter: str) -> str:
    """Return the characters that a form of *letter* may begin with."""
    return f"{letter}{letter.lower()}{letter.upper()}\\%&" + ("+" if letter == " " else "")


@lru_cache(maxsize=1000)
def _letter_pattern(letter: str, *, any_case: bool) -> str:
    """Return a pattern for a letter as text, and as URLs, JSON, HTML and Python quote it.

    Each letter has its own alternatives, because encoders quote different letters. An escape may be
    escaped again: a percent sign becomes %25, a backslash two, an ampersand `&amp;`.
    """
    cases = {letter, letter.lower(), letter.upper()} if any_case else {letter}
    letters = sorted(case for case in cases if len(case) == 1)
    if letter.isascii() and letter.isalnum():
        return _alphanumeric_pattern(letters)
    written = {form for case in letters for form in _written_forms(case)}
    entities = "|".join(form for case in letters for form in _entity_forms(case))
    forms = [
        *sorted(written, key=lambda form: (-len(form), form)),
        f"&(?:amp;)*(?:{entities})",
    ]
    escaped = f"(?:{BACKSLASH})?" if letter in "'\"/" else ""
    return f"{escaped}(?:{'|'.join(forms)})"


def _alphanumeric_pattern(letters: Sequence[str]) -> str:
    """Return the pattern of a letter that hardly any encoder quotes; it is compiled quickly."""
    codes = "|".join(f"{ord(letter):02x}" for letter in letters)
    octal = "|".join(f"{ord(letter):03o}" for letter in letters)
    decimal = "|".join(str(ord(letter)) for letter in letters)
    return (
        rf"(?:[{''.join(letters)}]|%(?:25)*(?:u00)?(?i:{codes})"
        rf"|{BACKSLASH}(?:(?:x|u00|U0{{6}}|u\{{0*)(?i:{codes})\}}?|{octal})"
        rf"|&(?:amp;)*#(?:0*(?:{decimal})(?!\d)|[xX]0*(?i:{codes})(?![0-9a-fA-F]));?)"
    )


def _written_forms(letter: str) -> Iterator[str]:
    """Yield the patterns of a letter as it is, and behind a percent sign or a backslash."""
    for plain in (letter, json.dumps(letter)[1:-1], repr(letter)[1:-1]):
        yield _escaped(plain)
    if letter == " ":
        yield r"\+"
    point = ord(letter)
    braced = f"[Uu]\\{{?0*(?i:{point:x})(?![0-9a-fA-F])\\}}?"
    encodings = {letter.encode(errors="surrogateescape"), letter.encode("latin-1", "ignore")}
    for encoded in filter(None, encodings):
        bytes_ = [f"(?:%(?:25)*|{BACKSLASH}x)(?i:{byte:02x})" for byte in encoded]
        yield "".join(bytes_)
        yield "".join(rf"{BACKSLASH}{byte:03o}" for byte in encoded)
        yield _escaped(repr(encoded)[2:-1])
    yield f"{BACKSLASH}{braced}"
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    pairs = (units[start : start + 4] for start in range(0, len(units), 4))
    yield "".join(rf"(?:{BACKSLASH}|%)u(?i:{unit})" for unit in pairs)


def _entity_forms(letter: str) -> Iterator[str]:
    """Yield the patterns of a letter behind the ampersand of an HTML entity."""
    point = ord(letter)
    yield rf"#0*{point}(?!\d);?"
    yield rf"#[xX]0*(?i:{point:x})(?![0-9a-fA-F]);?"
    yield from (f"{name};" for name in NAMED_ENTITIES.get(letter, ()))


def _escaped(form: str) -> str:
    return re.escape(form).replace(r"\\", BACKSLASH)


class _RedactingRecordFactory:
    """Log record factory that masks secrets, independently of handlers and formatters."""

    def __init__(self, former: Any) -> None:
        self.former = former

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self.former(*args, **kwargs)
        record.msg, record.args = _RedactedMessage(record.msg, record.args), None
        if record.exc_info and record.exc_info[0]:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return record


class _RedactedMessage:
    """Log message that is formatted on demand, as most messages are never written."""

    def __init__(self, message: object, arguments: Any) -> None:
        self.message = message
        self.arguments = arguments

    def __str__(self) -> str:
        text = str(self.message)
        return redact(text % self.arguments if self.arguments else text)
