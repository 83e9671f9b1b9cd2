"""Process that stops the embedded server some time after its last user.

The process waits for the lock that users share, so it also learns of users that were killed. It
holds `linger.lock` as long as it lives; users start it when they find that lock free.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.file_locks import (
    close_lock,
    locked,
    open_lock,
    try_exclusive,
    wait_until_free,
)

PACKAGES = Path(__file__).parents[2]


def start_lingering(server: EmbeddedServer, seconds: float) -> None:
    """Start the process unless there is one. The caller holds `start.lock`."""
    lock = open_lock(server.linger_lock)
    try:
        if not try_exclusive(lock):
            return
        # The process inherits the lock with the descriptor, so it is held at every moment. The
        # shell ends at once: nobody has to wait for the process, which has a session of its own.
        command = [sys.executable, "-m", __name__, str(server.home), str(seconds), str(lock)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CATLOG_")}
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            cwd="/",
            env=kept | {"PYTHONPATH": str(PACKAGES)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            start_new_session=True,
            pass_fds=[lock],
        )
    finally:
        os.close(lock)  # without releasing it: the process has it now


def linger(server: EmbeddedServer, seconds: float, lock: int) -> None:
    """Stop *server* when nobody has used it for *seconds*; then release *lock*."""
    users = open_lock(server.users_lock)
    while True:
        wait_until_free(users)
        last_use = os.fstat(users).st_mtime_ns
        time.sleep(seconds)
        if not _is_file(users, server.users_lock):
            return  # the home was removed; a server without its files ends by itself
        with locked(server.start_lock):
            if try_exclusive(users) and os.fstat(users).st_mtime_ns == last_use:
                server.stop()
                # Before users can come again: they trust whoever holds the lock to stop the server.
                close_lock(lock)
                return


def _is_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


if __name__ == "__main__":
    home, seconds, lock = sys.argv[1:]
    linger(EmbeddedServer(Path(home)), float(seconds), int(lock))
