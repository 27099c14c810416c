"""Takes from a rendering child whatever it does not need, before it sees a stranger's byte.

Afterwards the process can compute, start threads, read the code that it may import, and answer its
parent. Each step is optional, because kernels and container runtimes differ; `enter` returns which
ones took effect. Neither the process nor what takes it over can undo a step.

The kernel's interfaces are called through ctypes. Of the libraries, pyseccomp needs libseccomp on
the host and had its last release in 2021; py-landlock has no rules for scopes.
"""

import os
import platform
import resource
import sys
from collections.abc import Callable, Sequence

from resize_pipeline.imaging.sandbox import landlock, modules, seccomp
from resize_pipeline.imaging.sandbox.kernel import PR_SET_NO_NEW_PRIVS, prctl, set_dumpable

ON = "on"


def enter(read_paths: Sequence[str]) -> dict[str, str]:
    """Give up everything that rendering does not need, for good.

    Call this with one thread, after importing what rendering needs. What a transform imports later
    is still found.

    Args:
        read_paths: files and folders that transforms may read too, RENDER_READ_PATHS.

    Returns:
        For each step `ON`, or why it has no effect here.
    """
    steps: dict[str, Callable[[], None]] = {
        "no written files": _write_no_files,
        "no new privileges": lambda: prctl(PR_SET_NO_NEW_PRIVS, 1),
        "memory hidden": lambda: set_dumpable(dumpable=False),
        "Landlock": lambda: _restrict_files(read_paths),
        "seccomp": lambda: seccomp.enter(platform.machine()),
    }
    # Nothing can be written, so nobody shall try.
    sys.dont_write_bytecode = True
    done: dict[str, str] = {}
    for name, step in steps.items():
        try:
            step()
            done[name] = ON
        except OSError as error:
            done[name] = error.strerror or str(error)
    return done


def hide_environment() -> None:
    """Keep processes of the same user from reading this one's environment and memory.

    Only without Landlock, which keeps children from it anyway, because it has a price: the process
    writes no core dump, and only root can attach a debugger (prctl(2), PR_SET_DUMPABLE).
    """
    try:
        landlock.abi()
    except OSError:
        try:
            set_dumpable(dumpable=False)
        except OSError:
            return


def _write_no_files() -> None:
    # A longer file than this raises OSError, because Python ignores SIGXFSZ.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _restrict_files(read_paths: Sequence[str]) -> None:
    libraries = modules.libraries()
    found = modules.importable_outside(libraries)
    archives = filter(os.path.isfile, sys.path)
    code = modules.code_of(found.values())
    landlock.enter([*libraries, *landlock.SYSTEM_FILES, *archives, *code, *read_paths])
    sys.meta_path.insert(0, modules.KnownModules(found))
