"""Secrets of providers: reading them for spiders, and masking them in logs and stored text.

Secrets come from environment variables when a crawl starts. They are not settings, because Scrapy
copies, logs and shows settings. After a secret has been read, this process writes `***` instead of
its value into logs and the database.
"""

import html
import json
import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from catlog_scrapy.exceptions import ConfigurationError

PREFIX = "CATLOG_SECRET_"
MASK = "***"
# Masking a shorter secret would mask parts of ordinary words.
MIN_SECRET_CHARS = 4


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


def redact(text: str) -> str:
    """Return *text* with every secret of this process, in any encoding, replaced by `***`."""
    return _known.pattern.sub(MASK, text) if _known.pattern else text


def find_secret_in(secrets: Mapping[str, str], text: str) -> str | None:
    """Return the name of a secret whose value *text* contains in any encoding, else None."""
    return next(
        (name for name, value in secrets.items() if _secret_pattern(value).search(text)), None
    )


class _KnownSecrets:
    """Secrets of this process, and the pattern that finds them."""

    def __init__(self) -> None:
        self.pattern: re.Pattern[str] | None = None
        self._values: set[str] = set()
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Mask these values too."""
        with self._lock:
            fresh = set(values) - self._values
            if not fresh:
                return
            if not self._values:
                logging.setLogRecordFactory(_RedactingRecordFactory(logging.getLogRecordFactory()))
            self._values |= fresh
            # A secret may be the beginning of a longer one, which has to match first.
            longest_first = sorted(self._values, key=len, reverse=True)
            self.pattern = re.compile("|".join(_secret_pattern(v).pattern for v in longest_first))


_known = _KnownSecrets()


@lru_cache(maxsize=64)
def _secret_pattern(value: str) -> re.Pattern[str]:
    """Compile a pattern for *value* as plain text and as encoded in URLs, JSON, HTML and Python.

    Each character has its own alternatives, because encoders quote different characters.
    """
    return re.compile("".join(map(_letter_pattern, value)))


def _letter_pattern(letter: str) -> str:
    encoded = letter.encode(errors="surrogateescape")
    forms = {
        letter,
        json.dumps(letter)[1:-1],
        repr(letter)[1:-1],
        repr(encoded)[2:-1],
        html.escape(letter),
    }
    if letter == " ":
        forms.add("+")
    if letter in "'\"/":
        forms.add(f"\\{letter}")
    # A quoted value may be quoted again: % becomes %25.
    quoted = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in encoded)
    longest_first = sorted(forms, key=len, reverse=True)
    escaped = (re.escape(form).replace(r"\\", r"\\+") for form in longest_first)
    return f"(?:{'|'.join([quoted, *escaped])})"


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
