"""The CPU time of other processes, which only the kernel can tell without their help."""

import sys
import time

_SCHEDULED = 2
"""CPUCLOCK_SCHED in the kernel's include/linux/posix-timers_types.h: user and system time."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; a clock's where the system has no such clock.

    A child's own word is not taken for it, and files of /proc can be hidden.
    """
    if sys.platform == "linux":
        try:
            # MAKE_PROCESS_CPUCLOCK in the same file.
            return time.clock_gettime((~pid << 3) | _SCHEDULED)
        except OSError:
            return 0.0
    return time.monotonic()
