"""Locks on files, which the kernel releases however a process ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of a file; wait for it."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        close_lock(lock)


def open_lock(path: Path) -> int:
    """Open a file to lock it; read only, so that root's file serves other users too.

    Programs that this process starts do not inherit the descriptor.
    """
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def close_lock(lock: int) -> None:
    """Release a lock and close its file."""
    fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone leaves it with children forked meanwhile
    os.close(lock)


def share(lock: int) -> None:
    """Share the lock with others; wait while it is held exclusively."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def is_free(lock: int) -> bool:
    """Return whether nobody holds the lock; this process does not hold it afterwards."""
    free = try_exclusive(lock)
    fcntl.flock(lock, fcntl.LOCK_UN)
    return free


def try_exclusive(lock: int) -> bool:
    """Take the lock exclusively unless others hold it; return whether it was taken."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
