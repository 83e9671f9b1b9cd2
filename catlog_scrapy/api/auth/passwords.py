"""Passwords, hashed with argon2: slowly on purpose, and so no more than a few at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from catlog_scrapy.exceptions import NotPossible

MIN_PASSWORD_CHARS = 8
# Bytes; more would be work that a stranger can order.
MAX_PASSWORD_BYTES = 1024
# Hashes at once: each takes 64 MiB and some 50 ms of a core.
MAX_CONCURRENT_HASHES = 2
# Log-ins that wait for one of them, and for how many seconds. The others are sent away at once, for
# they hold threads that other requests need.
MAX_WAITING_LOGINS = 8
HASH_WAIT_S = 2.0


class TooManyLogins(Exception):
    """Too many passwords are checked just now. Raised by `Passwords.slot`."""


class Passwords:
    """Makes and checks hashes; *hasher* says how costly they are."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self.hasher = hasher or PasswordHasher()
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT_HASHES)
        self._queue = threading.BoundedSemaphore(MAX_CONCURRENT_HASHES + MAX_WAITING_LOGINS)
        # What the password of an unknown user is compared with: it takes the same time.
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
        """argon2's encoded hash. Raises NotPossible for a password that nobody should have."""
        if len(password) < MIN_PASSWORD_CHARS:
            raise NotPossible(f"a password needs at least {MIN_PASSWORD_CHARS} characters.")
        if not is_valid_password_text(password):
            raise NotPossible(
                f"a password is text of at most {MAX_PASSWORD_BYTES} bytes, without U+0000."
            )
        return self.hasher.hash(password)

    def match(self, password: str, hash_: str | None) -> bool:
        """Whether *hash_* is one of *password*; where there is none, no, after the same time."""
        try:
            self.hasher.verify(hash_ or self._decoy_hash, password)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:
            raise TooManyLogins from error  # no memory for it
        return hash_ is not None

    def rehash_if_outdated(self, password: str, hash_: str) -> str:
        """*hash_*, or a new one where that was made with other parameters than today's."""
        outdated = self.hasher.check_needs_rehash(hash_)
        return self.hasher.hash(password) if outdated else hash_


def is_valid_password_text(password: str) -> bool:
    """Whether it is worth a look: text that can be encoded, and not too much of it."""
    if len(password) > MAX_PASSWORD_BYTES or "\0" in password:
        return False
    try:
        return len(password.encode()) <= MAX_PASSWORD_BYTES
    except UnicodeEncodeError:
        return False
