"""Filters system calls with seccomp: a list of those that rendering needs, and no other.

Sources: linux/seccomp.h, linux/filter.h, linux/audit.h and Documentation/userspace-api/
seccomp_filter.rst of Linux 6.18; the numbers of the system calls are those that libseccomp 2.5.4
resolves, from arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from resize_pipeline.imaging.sandbox.kernel import system_call


@dataclass(frozen=True, slots=True)
class _Architecture:
    """How a machine names itself to filters, and which of the two numbers of each call it has."""

    audit: int
    column: int


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0),
    "aarch64": _Architecture(0xC00000B7, 1),
}
_NONE = -1

_ALLOWED = {
    # Answering the parent, and reading code.
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "poll": (7, _NONE),
    "ppoll": (271, 73),
    "select": (23, _NONE),
    "pselect6": (270, 72),
    "dup": (32, 23),
    "dup2": (33, _NONE),
    "dup3": (292, 24),
    "fstat": (5, 80),
    "stat": (4, _NONE),
    "lstat": (6, _NONE),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, _NONE),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, _NONE),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    # Memory.
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # Threads, and the process's own signals and end.
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # Time.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, _NONE),
    "times": (100, 153),
    "getrusage": (98, 165),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "alarm": (37, _NONE),
    # What a process may know of itself and of the machine.
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
}

_LOW, _HIGH = 0xFFFFFFFF, 0xFFFFFFFF << 32


@dataclass(frozen=True, slots=True)
class _Condition:
    """Allows a call if these bits of an argument have one of some values."""

    number: tuple[int, int]
    argument: int
    bits: int
    values: tuple[int, ...]


def _conditions() -> tuple[_Condition, ...]:
    # asm-generic/fcntl.h. O_TMPFILE is no way around: it needs an access mode that writes.
    writing = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
    # linux/sched.h: CLONE_THREAD, and from CLONE_NEWNS on everything that makes a namespace.
    thread, namespaces = 0x00010000, 0x7E020000
    # asm-generic/ioctls.h: TCGETS, FIONCLEX, FIOCLEX. Others inject input into a terminal.
    harmless = (0x5401, 0x5450, 0x5451)
    # linux/fcntl.h: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC. F_SETOWN sends signals.
    descriptors = (0, 1, 2, 3, 1030)
    # linux/prctl.h: PR_SET_NAME, PR_GET_NAME, PR_SET_VMA. Threads and memory are named so.
    names = (15, 16, 0x53564D41)
    own = (os.getpid(),)
    return (
        _Condition((2, _NONE), 1, writing, (os.O_RDONLY,)),  # open
        _Condition((257, 56), 2, writing, (os.O_RDONLY,)),  # openat
        _Condition((56, 220), 0, thread | namespaces, (thread,)),  # clone
        _Condition((16, 29), 1, _LOW, harmless),  # ioctl
        _Condition((72, 25), 1, _LOW, descriptors),  # fcntl
        _Condition((157, 167), 0, _LOW, names),  # prctl
        _Condition((62, 129), 0, _LOW, own),  # kill
        _Condition((234, 131), 0, _LOW, own),  # tgkill
        _Condition((302, 261), 2, _LOW | _HIGH, (0,)),  # prlimit64, without new limits
    )


# linux/seccomp.h
_SET_MODE_FILTER = 1
_ALL_THREADS = 1 << 0
# Kernels before 5.16 otherwise slow down every filtered process, for the sake of browsers' scripts.
_KEEP_SPECULATION = 1 << 2
_SECCOMP = (317, 277)
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER_AT, _AUDIT_AT, _ARGUMENTS_AT = 0, 4, 16

# linux/bpf_common.h
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06

_X32_FROM = 0x40000000
"""Numbers of x86-64's other calling convention, with pointers of 32 bits, start here."""
_NEW_FROM = 424
"""From here on numbers are the same everywhere. C libraries do without these calls if the kernel
says that it has none, as with clone3, whose arguments no filter can see."""

Instruction = tuple[int, int, int, int]


def enter(machine: str) -> None:
    """Refuse system calls to all threads of this process, but for those that rendering needs.

    A refused call returns an error. One of a foreign architecture ends the process.

    Args:
        machine: the kernel's name of the architecture.

    Raises:
        OSError: there is no filter for it, or the kernel offers no seccomp.
    """
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None or struct.calcsize("P") != struct.calcsize("Q"):
        msg = f"there is no filter for {machine}, only for {' and '.join(_ARCHITECTURES)}"
        raise OSError(msg)
    program = b"".join(struct.pack("=HBBI", *one) for one in _program(architecture))
    memory = ctypes.create_string_buffer(program, len(program))
    filter_of = struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    number = _SECCOMP[architecture.column]
    system_call(number, _SET_MODE_FILTER, _ALL_THREADS | _KEEP_SPECULATION, filter_of)


def _program(architecture: _Architecture) -> list[Instruction]:
    column = architecture.column
    program = [
        (_LOAD, 0, 0, _AUDIT_AT),
        (_IF_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_AT_LEAST, 0, 1, _X32_FROM),
        (_RETURN, 0, 0, _KILL),
    ]
    for numbers in _ALLOWED.values():
        if numbers[column] != _NONE:
            program += [(_IF_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    for condition in _conditions():
        if condition.number[column] != _NONE:
            checked = _check(condition)
            program += [(_IF_EQUAL, 0, len(checked), condition.number[column]), *checked]
    return [
        *program,
        (_IF_AT_LEAST, 0, 1, _NEW_FROM),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]


def _check(condition: _Condition) -> list[Instruction]:
    """Compare the halves of an argument, the low one first, as both architectures store it."""
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    at = _ARGUMENTS_AT + 8 * condition.argument
    values = [
        (_IF_EQUAL, len(condition.values) - index, 0, value & _LOW)
        for index, value in enumerate(condition.values)
    ]
    low = [(_LOAD, 0, 0, at), (_AND, 0, 0, condition.bits & _LOW), *values]
    high = [(_LOAD, 0, 0, at + 4), (_IF_EQUAL, 1, 0, 0), refuse] if condition.bits > _LOW else []
    return [*high, *low, refuse, (_RETURN, 0, 0, _ALLOW)]
