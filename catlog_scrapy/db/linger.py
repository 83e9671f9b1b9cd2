"""Process that stops the embedded server some time after its last user.

The process watches the lock that users share, so it also learns of users that were killed. It
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
    is_free,
    locked,
    open_lock,
    try_exclusive,
)

PACKAGES = Path(__file__).parents[2]
MAX_CHECK_INTERVAL_S = 1.0


def start_lingering(server: EmbeddedServer, seconds: float) -> None:
    """Start the process unless there is one. The caller holds `start.lock`."""
    lock = open_lock(server.linger_lock)
    try:
        if not try_exclusive(lock):
            return
        # The process inherits the lock with the descriptor, so it is held at every moment. The
        # shell ends at once: nobody has to wait for the process, which has a session of its own.
        arguments = map(str, (server.home, seconds, lock, server.pid()))
        command = [sys.executable, "-m", __name__, *arguments]
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


def linger(server: EmbeddedServer, seconds: float, lock: int, pid: int) -> None:
    """Stop *server*, process *pid*, when nobody has used it for *seconds*; then release *lock*.

    A server whose files were removed or moved is killed: it would go on running, or remove the
    path of its socket when it stops, and the next server of the home has that path.
    """
    try:
        users = open_lock(server.users_lock)
    except FileNotFoundError:  # removed or moved while this process started
        server.kill(pid)
        return
    last_use, deadline = 0, 0.0
    while True:
        found = server.pid()
        is_home = _is_file(users, server.users_lock)
        if found != pid or not is_home:
            server.kill(pid)
        if not is_home:
            return
        pid = found
        use = os.fstat(users).st_mtime_ns
        if use != last_use or not is_free(users):
            last_use, deadline = use, time.monotonic() + seconds
        elif time.monotonic() >= deadline:
            with locked(server.start_lock):
                is_idle = os.fstat(users).st_mtime_ns == last_use
                if is_idle and _is_file(users, server.users_lock) and try_exclusive(users):
                    server.stop()
                    # Before users can come again: they trust the holder to stop the server.
                    close_lock(lock)
                    return
        time.sleep(min(seconds, MAX_CHECK_INTERVAL_S))


def _is_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


if __name__ == "__main__":
    home, seconds, lock, pid = sys.argv[1:]
    linger(EmbeddedServer(Path(home)), float(seconds), int(lock), int(pid))
