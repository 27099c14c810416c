"""Run a program as another user: `python -I -S as_user.py USER PROGRAM ARGUMENT...`.

Needed for servers that refuse to run as root.
"""

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Switch to the user, then replace this process by the program."""
    user = pwd.getpwnam(argv[0])
    parent = os.getppid()
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    # Changing the user clears the death signal that the guard has set.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(argv[1], argv[1:])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
