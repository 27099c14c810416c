"""Run one program and end it, with everything it started, as soon as the supervisor is gone.

`python -I -S guard.py CONTROL_FD GRACE_S PROGRAM ARGUMENT...`

The control socket reaches end of file when the supervisor closes it and also when the supervisor
is killed with -9, so orderly and disorderly ends are handled alike. A guard runs beside every
service for as long as the service does, so it imports only little of the standard library.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05
KILL_DEADLINE_S = 5.0
EXIT_NOT_STARTED = 127


def main(argv: list[str]) -> int:
    """Run the program until it ends, the supervisor is gone or SIGTERM arrives.

    Args:
        argv: the file descriptor of the control socket, the seconds between SIGTERM and SIGKILL,
            and the program with its arguments.

    Returns:
        The program's exit code; 128 + N if signal N ended it, as in a shell.
    """
    control = socket.socket(fileno=int(argv[0]))
    control.set_inheritable(False)
    wake_up = _wake_up_on_signals()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard_pid = os.getpid()

    def die_with_guard() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        # The guard has one thread, so running Python between fork and exec is safe.
        program = subprocess.Popen(
            argv[2:],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_guard,  # noqa: PLW1509
        )
    except OSError as error:
        print(f"cannot start {argv[2]}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_NOT_STARTED
    with contextlib.suppress(OSError):
        control.sendall(f"{program.pid}\n".encode())

    while _reap(program):
        readable, _, _ = select.select([control, wake_up], [], [])
        if wake_up in readable and signal.SIGTERM in wake_up.recv(512):
            break
        if control in readable:
            break
    _end_everything(program, grace_s=float(argv[1]))
    code = program.wait()
    return 128 - code if code < 0 else code


def _wake_up_on_signals() -> socket.socket:
    """Turn signals into bytes on a socket; the supervisor handles SIGINT and SIGHUP."""
    receiver, sender = socket.socketpair()
    sender.settimeout(0)
    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        # A handler and not SIG_IGN, which the program would inherit.
        signal.signal(number, lambda _number, _frame: None)
    return receiver


def _prctl(option: int, value: int) -> None:
    """Set a process attribute on Linux; do nothing on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_everything(program: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the program's process group and every descendant that has left it."""
    # Without a subreaper, an orphan is no longer a descendant, so collect descendants beforehand.
    strays = _descendants(os.getpid())
    for number, deadline_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_DEADLINE_S)):
        deadline = time.monotonic() + deadline_s
        strays |= _descendants(os.getpid())
        _signal_all(program.pid, strays, number)
        while time.monotonic() < deadline:
            _reap(program)
            strays = {pid for pid in strays | _descendants(os.getpid()) if _is_alive(pid)}
            if program.returncode is not None and not strays and not _group_exists(program.pid):
                return
            if number == signal.SIGKILL:
                _signal_all(program.pid, strays, number)
            time.sleep(POLL_S)


def _signal_all(group: int, strays: set[int], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for pid in strays:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != group:
                os.kill(pid, number)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap(program: subprocess.Popen[bytes]) -> bool:
    """Reap the program if it has ended, and dead orphans that the guard has adopted.

    Returns:
        Whether the program is still running.
    """
    # Only a subreaper, thus only on Linux, adopts orphans.
    while sys.platform == "linux":
        # Popen must reap the program itself, to learn its exit code.
        program.poll()
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            break
        if dead is None:
            break
        if dead.si_pid != program.pid:
            os.waitpid(dead.si_pid, 0)
    return program.poll() is None


def _descendants(root: int) -> set[int]:
    """Return the process ids of all children, their children and so on."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    pending = [root]
    while pending:
        for pid in children.get(pending.pop(), []):
            found.add(pid)
            pending.append(pid)
    return found


def _processes() -> list[tuple[int, int]]:
    """List the machine's processes as (pid, parent's pid)."""
    proc = Path("/proc")
    if (proc / "self/stat").exists():
        pairs: list[tuple[int, int]] = []
        for entry in proc.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    # The name in parentheses may itself contain blanks and parentheses.
                    fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                    pairs.append((int(entry.name), int(fields[1])))
        return pairs
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE) as listing:
        output = listing.communicate()[0]
    rows = (line.split() for line in output.splitlines())
    # ps lists itself, and it has ended by now.
    return [(int(row[0]), int(row[1])) for row in rows if int(row[0]) != listing.pid]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
