"""Password hashes (argon2).

Hashing is slow on purpose, so the number of concurrent hashes is low.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from catlog_scrapy.exceptions import NotPossible

MIN_PASSWORD_CHARS = 8
# The limit bounds the work that an anonymous client can cause.
MAX_PASSWORD_BYTES = 1024
# Each hash takes 64 MiB and about 50 ms of a core.
MAX_CONCURRENT_HASHES = 2
# Further log-ins are refused at once, because waiting log-ins hold threads of other requests.
MAX_WAITING_LOGINS = 8
HASH_WAIT_S = 2.0


class TooManyLogins(Exception):
    """Too many passwords are being checked. Raised by `Passwords.slot` and `Passwords.match`."""


class Passwords:
    """Makes and verifies password hashes; *hasher* sets their cost."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self.hasher = hasher or PasswordHasher()
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT_HASHES)
        self._queue = threading.BoundedSemaphore(MAX_CONCURRENT_HASHES + MAX_WAITING_LOGINS)
        # Compared with the password of an unknown user, so that the response takes as long.
        self._decoy_hash = self.hasher.hash(token_hex())

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for permission to hash a password. Raises TooManyLogins after HASH_WAIT_S."""
        if not self._queue.acquire(blocking=False):
            raise TooManyLogins
        try:
            if not self._slots.acquire(timeout=HASH_WAIT_S):
                raise TooManyLogins
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._queue.release()

    def hash(self, password: str) -> str:
        """Return argon2's encoded hash. Raises NotPossible for a password of invalid length."""
        if len(password) < MIN_PASSWORD_CHARS:
            raise NotPossible(
                f"the password is too short; use at least {MIN_PASSWORD_CHARS} characters"
            )
        if not is_valid_password_text(password):
            raise NotPossible(
                "the password is too long or not valid Unicode text; use at most"
                f" {MAX_PASSWORD_BYTES} bytes without U+0000"
            )
        return self.hasher.hash(password)

    def match(self, password: str, hash_: str | None) -> bool:
        """Return whether *hash_* is a hash of *password*; without a hash False, after as long."""
        try:
            self.hasher.verify(hash_ or self._decoy_hash, password)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:
            raise TooManyLogins from error  # argon2 could not allocate its memory
        return hash_ is not None

    def rehash_if_outdated(self, password: str, hash_: str) -> str:
        """Return *hash_*, or a new hash if its parameters are not the current parameters."""
        outdated = self.hasher.check_needs_rehash(hash_)
        return self.hasher.hash(password) if outdated else hash_


def is_valid_password_text(password: str) -> bool:
    """Return whether *password* is encodable and short enough to hash."""
    if len(password) > MAX_PASSWORD_BYTES or "\0" in password:
        return False
    try:
        return len(password.encode()) <= MAX_PASSWORD_BYTES
    except UnicodeEncodeError:
        return False
