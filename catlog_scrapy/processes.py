"""Kernel functions for child processes; complete on Linux, partly available elsewhere."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

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
