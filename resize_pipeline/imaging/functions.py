"""Imports the functions that a spec file names, in a child process."""

import importlib
from collections.abc import Callable
from functools import lru_cache

from resize_pipeline.errors import UserError, one_line


@lru_cache
def imported(path: str, role: str) -> Callable[..., object]:
    """Import a function.

    Args:
        path: `package.module:function`.
        role: what the function is to the spec file.

    Raises:
        UserError: it can't be imported, for whatever picture.
    """
    module, _, name = path.partition(":")
    try:
        function: object = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        msg = (
            f"{role} {path} can't be imported: {said(error)}; install its package "
            "where runs execute, or add its folder to PYTHONPATH"
        )
        raise UserError(msg) from error
    if not callable(function):
        msg = f"{role} {path} is of type {type(function).__name__}; it must be a function"
        raise UserError(msg)
    return function


def said(error: BaseException) -> str:
    """Return an error of a function as one line."""
    message = one_line(str(error))
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, PermissionError):
        line += "; rendering children may only read code, and what RENDER_READ_PATHS names"
    return line
