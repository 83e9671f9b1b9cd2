"""Passwords, hashed with argon2: slowly on purpose, and so no more than a few at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from catlog_scrapy.exceptions import NotPossible

SHORTEST = 8
# Bytes; more would be work that a stranger can order.
LONGEST = 1024
# Hashes at once: each takes 64 MiB and some 50 ms of a core.
AT_ONCE = 2
# Log-ins that wait for one of them, and for how many seconds. The others are sent away at once, for
# they hold threads that other requests need.
WAITING = 8
PATIENCE = 2.0


class Busy(Exception):
    """Too many passwords are checked just now. Raised by `Passwords.turn`."""


class Passwords:
    """Makes and checks hashes; *hasher* says how costly they are."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self.hasher = hasher or PasswordHasher()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._line = threading.BoundedSemaphore(AT_ONCE + WAITING)
        # What the password of an unknown user is compared with: it takes the same time.
        self._nobody = self.hasher.hash(token_hex())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time in which the block may hash. Raises Busy where that does not come soon."""
        if not self._line.acquire(blocking=False):
            raise Busy
        try:
            if not self._slots.acquire(timeout=PATIENCE):
                raise Busy
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._line.release()

    def hash(self, password: str) -> str:
        """argon2's encoded hash. Raises NotPossible for a password that nobody should have."""
        if len(password) < SHORTEST:
            raise NotPossible(f"a password needs at least {SHORTEST} characters.")
        if not usable(password):
            raise NotPossible(f"a password is text of at most {LONGEST} bytes, without U+0000.")
        return self.hasher.hash(password)

    def match(self, password: str, hash_: str | None) -> bool:
        """Whether *hash_* is one of *password*; where there is none, no, after the same time."""
        try:
            self.hasher.verify(hash_ or self._nobody, password)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:
            raise Busy from error  # no memory for it
        return hash_ is not None

    def renewed(self, password: str, hash_: str) -> str:
        """*hash_*, or a new one where that was made with other parameters than today's."""
        outdated = self.hasher.check_needs_rehash(hash_)
        return self.hasher.hash(password) if outdated else hash_


def usable(password: str) -> bool:
    """Whether it is worth a look: text that can be encoded, and not too much of it."""
    if len(password) > LONGEST or "\0" in password:
        return False
    try:
        return len(password.encode()) <= LONGEST
    except UnicodeEncodeError:
        return False
