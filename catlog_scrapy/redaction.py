"""What nobody may read: the secrets of providers, handed to their spiders and to nobody else.

They come from the environment when a crawl is made. They are no settings: those are copied, logged
and shown. From then on, whatever this process logs or stores has `***` in their place.
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
# A shorter one would stand in half of all words: masking it would mask them, too.
MIN_SECRET_CHARS = 4


def secret_variable(provider: str, name: str) -> str:
    """The environment variable that holds a provider's secret."""
    return f"{PREFIX}{provider}_{name}".upper().replace("-", "_")


def secret_hint(provider: str, name: str) -> str:
    """What to tell those who try to give a secret another way."""
    return f"is a secret: it comes from the environment, as {secret_variable(provider, name)}"


def read_secrets(provider: str, names: Iterable[str]) -> dict[str, str]:
    """The values of a provider's secrets by name; this process writes none of them any more.

    Raises ConfigurationError for one that is missing or too short.
    """
    values = {}
    for name in names:
        variable = secret_variable(provider, name)
        # What was read from a file ends in a line end, which is none of the secret.
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ConfigurationError(
                f"{provider} needs the secret {name!r}: set the environment variable {variable}"
                " where spiders run."
            )
        if len(value) < MIN_SECRET_CHARS:
            raise ConfigurationError(
                f"the secret in {variable} is too short to be kept out of logs; it needs"
                f" {MIN_SECRET_CHARS} characters."
            )
        values[name] = value
    _known.add(values.values())
    return values


def redact(text: str) -> str:
    """*text* with `***` for every secret that this process knows, however it is spelled there."""
    return _known.pattern.sub(MASK, text) if _known.pattern else text


def find_secret_in(secrets: Mapping[str, str], text: str) -> str | None:
    """The name of one of these *secrets* that *text* holds, however it is spelled there."""
    return next(
        (name for name, value in secrets.items() if _secret_pattern(value).search(text)), None
    )


class _KnownSecrets:
    """Knows the secrets of this process."""

    def __init__(self) -> None:
        self.pattern: re.Pattern[str] | None = None
        self._values: set[str] = set()
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        with self._lock:
            fresh = set(values) - self._values
            if not fresh:
                return
            if not self._values:
                logging.setLogRecordFactory(_RedactingRecordFactory(logging.getLogRecordFactory()))
            self._values |= fresh
            # One may begin as another does: the longest first.
            longest_first = sorted(self._values, key=len, reverse=True)
            self.pattern = re.compile("|".join(_secret_pattern(v).pattern for v in longest_first))


_known = _KnownSecrets()


@lru_cache(maxsize=64)
def _secret_pattern(value: str) -> re.Pattern[str]:
    """Finds *value* as it is, in a URL, in JSON, in HTML, and as Python writes it.

    Letter by letter, for nobody agrees on which of them have to be quoted.
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
    # What is quoted may be a part of something that is quoted again.
    quoted = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in encoded)
    longest_first = sorted(forms, key=len, reverse=True)
    escaped = (re.escape(form).replace(r"\\", r"\\+") for form in longest_first)
    return f"(?:{'|'.join([quoted, *escaped])})"


class _RedactingRecordFactory:
    """Makes log records that hold no secret, whatever handler or formatter they meet."""

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
    """What is logged, put in words only when somebody writes it: most of it nobody does."""

    def __init__(self, message: object, arguments: Any) -> None:
        self.message = message
        self.arguments = arguments

    def __str__(self) -> str:
        text = str(self.message)
        return redact(text % self.arguments if self.arguments else text)
