"""Kernel functions for processes; complete on Linux, partly available elsewhere."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

# From <sys/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send signal *number* to this process when its *parent* ends.

    The request needs Linux. On other systems the children of a killed parent run until their
    leases expire.
    """
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def become_subreaper() -> None:
    """Make this process the parent of orphaned descendants, which it can then end."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def open_descriptors() -> set[str]:
    """Return the open file descriptors and their targets; empty without `/proc`."""
    found = set()
    with suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the descriptor that reads this folder is closed by now
                found.add(f"{entry.name} {entry.readlink()}")
    return found


def child_processes() -> set[int]:
    """Return the ids of this thread's child processes; empty without `/proc`."""
    with suppress(OSError):
        return set(map(int, Path("/proc/thread-self/children").read_text().split()))
    return set()


@cache
def process_identity() -> str:
    """Return a name of this process that no other process has, on any machine.

    On Linux `is_alive` understands the name: boot, namespace of process ids, id and start.
    """
    place, started_at = _place(), _started_at(os.getpid())
    if place and started_at:
        return f"{place} {os.getpid()} {started_at}"
    return str(uuid4())


def is_alive(identity: str) -> bool | None:
    """Return whether the process of `process_identity` runs; None for an unknown machine."""
    place, _, process = identity.partition(" ")
    pid, _, started_at = process.partition(" ")
    if not started_at or place != _place():
        return None
    return _started_at(int(pid)) == started_at


def _place() -> str:
    """Return the boot of this machine and this process's namespace of process ids."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def _started_at(pid: int) -> str:
    """Return the start of a process, in clock ticks after the boot; empty if it has ended."""
    with suppress(OSError):
        # The name of the program, in brackets, may contain spaces: see proc(5).
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""


def kill(pid: int) -> None:
    """Kill a process, if it still exists."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill all processes of a group that still exist."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def oom_kills() -> int:
    """Return how many processes the kernel's OOM killer has ended; 0 without `/proc`."""
    try:
        with Path("/proc/vmstat").open() as counters:
            found = next((line for line in counters if line.startswith("oom_kill ")), "oom_kill 0")
    except OSError:
        return 0
    return int(found.split()[1])
