"""Code of a decoder that was taken over: a transform, because it runs in the same process.

Each attack returns when it has succeeded and raises OSError when it was refused. `PROJECT` is a
folder with secrets beside code, where a copy of this file lies, so it imports nothing of tests/.
"""

import ctypes
import errno
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).parent
PARENT = os.getppid()
_libc = ctypes.CDLL(None, use_errno=True)


def read_the_parent_s_environment():
    Path(f"/proc/{PARENT}/environ").read_bytes()


def read_the_parent_s_memory():
    Path(f"/proc/{PARENT}/maps").read_bytes()


def read_the_own_environment_of_the_kernel():
    Path("/proc/self/environ").read_bytes()


def read_dot_local():
    (PROJECT / ".local" / "credentials").read_bytes()


def read_dot_env():
    (PROJECT / ".env").read_bytes()


def read_a_file_beside_code():
    (PROJECT / "secrets.yaml").read_bytes()


def read_a_file_of_the_system():
    Path("/etc/passwd").read_bytes()


def list_the_project():
    list(PROJECT.iterdir())


def list_dot_local():
    list((PROJECT / ".local").iterdir())


def list_processes():
    list(Path("/proc").iterdir())


def open_an_internet_socket():
    socket.socket(socket.AF_INET).close()


def open_an_internet_6_socket():
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()


def open_a_unix_socket():
    socket.socket(socket.AF_UNIX).close()


def open_a_netlink_socket():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


def open_a_pair_of_sockets():
    for one in socket.socketpair():
        one.close()


def listen():
    with socket.create_server(("127.0.0.1", 0)):
        pass


def start_a_program():
    subprocess.run(["/bin/true"], check=True)


def start_a_shell():
    if os.system("true"):  # noqa: S605  An attack.
        raise PermissionError


def fork():
    if not os.fork():
        os._exit(0)
    os.wait()


def become_a_program():
    os.execv("/bin/sleep", ["sleep", "1000"])  # noqa: S606  An attack.


def write_a_file():
    (PROJECT / "written").write_bytes(b"x")


def append_to_code():
    with Path(__file__).open("a") as file:
        file.write("\n")


def truncate_a_file():
    os.truncate(PROJECT / "secrets.yaml", 0)


def remove_a_file():
    (PROJECT / "removable").unlink()


def rename_a_file():
    (PROJECT / "renamable").rename(PROJECT / "renamed")


def link_a_file():
    (PROJECT / "link").symlink_to("/etc/passwd")


def make_a_folder():
    (PROJECT / "folder").mkdir()


def open_up_a_file():
    (PROJECT / ".env").chmod(0o666)


def date_a_file():
    os.utime(PROJECT / ".env", (0, 0))


def signal_the_parent():
    os.kill(PARENT, signal.SIGCONT)


def signal_the_group():
    os.killpg(os.getpgid(0), signal.SIGCONT)


def signal_by_a_thread():
    _call(X86_64["tgkill"], PARENT, PARENT, signal.SIGCONT)


def signal_by_a_queue():
    _call(X86_64["rt_sigqueueinfo"], PARENT, signal.SIGCONT, struct.pack("iiiiI", 18, 0, -1, 0, 0))


def limit_the_parent():
    resource.prlimit(PARENT, resource.RLIMIT_CORE, resource.prlimit(PARENT, resource.RLIMIT_CORE))


def slow_down_the_parent():
    os.setpriority(os.PRIO_PROCESS, PARENT, 1)


def bind_the_parent_to_a_processor():
    os.sched_setaffinity(PARENT, os.sched_getaffinity(PARENT))


def trace_the_parent():
    _call(X86_64["ptrace"], PTRACE_SEIZE, PARENT, 0, 0)
    _call(X86_64["ptrace"], PTRACE_INTERRUPT, PARENT, 0, 0)
    os.waitpid(PARENT, WALL)
    _call(X86_64["ptrace"], PTRACE_DETACH, PARENT, 0, 0)


def read_the_parent_s_memory_at_once():
    # Of an address that is none: who may read is told so.
    try:
        _call(X86_64["process_vm_readv"], PARENT, _vector(), 1, _vector(), 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise


def make_a_file_in_memory():
    os.close(os.memfd_create("x"))


def leave_the_limits():
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    except ValueError as error:
        raise PermissionError from error


def write_into_a_terminal():
    """Type into the terminal, as TIOCSTI does: another error than that it is none."""
    import fcntl

    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise


def send_files_to_the_parent():
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as mine:
        socket.send_fds(mine, [b""], [0])


ATTACKS: dict[str, Callable[[], None]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__
}

X86_64 = {"tgkill": 234, "rt_sigqueueinfo": 129, "ptrace": 101, "process_vm_readv": 310}
"""Numbers of system calls that Python has no function for."""
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

NEVER_NEEDED = {
    "io_uring_setup": 425,
    "bpf": 321,
    "keyctl": 250,
    "add_key": 248,
    "mount": 165,
    "pivot_root": 155,
    "chroot": 161,
    "unshare": 272,
    "setns": 308,
    "userfaultfd": 323,
    "perf_event_open": 298,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "pidfd_send_signal": 424,
    "open_by_handle_at": 304,
    "name_to_handle_at": 303,
    "finit_module": 313,
    "kexec_load": 246,
    "shmget": 29,
    "msgget": 68,
    "mq_open": 240,
    "clone3": 435,
    "vfork": 58,
    "execveat": 322,
    "sendto": 44,
    "sendmsg": 46,
    "recvmsg": 47,
    "connect": 42,
    "bind": 49,
    "creat": 85,
    "openat2": 437,
    "mknod": 133,
    "setxattr": 188,
    "quotactl": 179,
    "reboot": 169,
    "sethostname": 170,
    "iopl": 172,
    "modify_ldt": 154,
    "personality": 135,
    "seccomp": 317,
    "landlock_restrict_self": 446,
}
"""System calls of x86-64 that no picture needs, and kernels had holes in."""


def _vector() -> bytes:
    return struct.pack("PN", 8, 8)


def _call(number: int, *arguments: int | bytes) -> int:
    longs = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    result = _libc.syscall(ctypes.c_long(number), *longs)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _transform(attack: Callable[[], None]) -> Callable[[Image.Image], Image.Image]:
    def transform(image: Image.Image) -> Image.Image:
        attack()
        return image

    return transform


for _name, _attack in ATTACKS.items():
    globals()[f"transform_{_name}"] = _transform(_attack)


def succeeded() -> list[str]:
    """The attacks that were not refused, of those that leave this process alive."""
    found = []
    for name, attack in ATTACKS.items():
        try:
            attack()
        except OSError:
            continue
        found.append(name)
    return found


def all_refused(image: Image.Image) -> Image.Image:
    """Paint the picture green if every attack was refused, or fail with those that were not."""
    found = succeeded() + unneeded_calls()
    if found:
        raise ValueError(", ".join(found))
    return Image.new("RGB", image.size, (0, 200, 0))


def unneeded_calls() -> list[str]:
    """The system calls that the kernel did not refuse before it looked at their arguments."""
    found = []
    for name, number in NEVER_NEEDED.items():
        try:
            _call(number, -1, 0, 0, 0, 0, 0)
        except OSError as error:
            if error.errno in {errno.EPERM, errno.ENOSYS}:
                continue
        found.append(name)
    return found


def no_unneeded_call(image: Image.Image) -> Image.Image:
    if found := unneeded_calls():
        raise ValueError(", ".join(found))
    return image


def own_files(image: Image.Image) -> Image.Image:
    """Fail with the open files of this process, but for the one that it answers by."""
    import fcntl

    found = {}
    for descriptor in range(1024):
        try:
            fcntl.fcntl(descriptor, fcntl.F_GETFD)
        except OSError:
            continue
        status = os.fstat(descriptor)
        found[descriptor] = (status.st_dev, status.st_ino) == _null()
    found.pop(int(sys.argv[1]))
    if found != {0: True, 1: True, 2: True}:
        raise ValueError(str(found))
    return image


def _null() -> tuple[int, int]:
    status = Path("/dev/null").stat()
    return status.st_dev, status.st_ino


def foreign_calls(image: Image.Image) -> Image.Image:
    """Call getpid by the numbers of x32, which a filter of plain numbers would let pass."""
    _libc.syscall(ctypes.c_long(0x40000000 + 39))
    return image


class _Command:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {PROJECT / 'by-the-parent'}",)


def answer_with_code(image: Image.Image) -> Image.Image:
    """Answer as children did that spoke pickle; both ways frame a message by its length."""
    data = pickle.dumps(_Command())
    os.write(int(sys.argv[1]), struct.pack("!i", len(data)) + data)
    return image


def answer_twice(image: Image.Image) -> Image.Image:
    """Leave an answer for the next picture, somebody else's."""
    data = b'{"kind":"renditions","sizes":[6],"made":[{"rendition":"small","width":9,"height":9,'
    data += b'"format":"PNG","smaller":false}]}'
    frame = struct.pack("!i", len(data)) + data + b"forged"
    os.write(int(sys.argv[1]), frame * 2)
    return image
