"""What only the kernel does, or tells, of processes; Linux alone does all of it."""

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
    """Have the kernel send this process a signal when its *parent* ends, however that ends.

    Only Linux can; elsewhere children outlive a parent that is killed, until their lease ends.
    """
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def become_subreaper() -> None:
    """Make what descends from this process its child, when its own parent has ended.

    So a spider keeps what it has started, and the warm parent can end what a spider left behind.
    """
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def open_descriptors() -> set[str]:
    """The open open_descriptors and what they are; none where the system does not tell."""
    found = set()
    with suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one that reads this folder
                found.add(f"{entry.name} {entry.readlink()}")
    return found


def child_processes() -> set[int]:
    """The processes whose parent this is; none where the system does not tell."""
    with suppress(OSError):
        return set(map(int, Path("/proc/thread-self/child_processes").read_text().split()))
    return set()


def kill(pid: int) -> None:
    """End a process, if it is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """End all processes of a group, if there are any left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not say."""
    try:
        with Path("/proc/vmstat").open() as counters:
            found = next((line for line in counters if line.startswith("oom_kill ")), "oom_kill 0")
    except OSError:
        return 0
    return int(found.split()[1])
