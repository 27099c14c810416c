"""Which code a sandboxed process may still read, and how it finds that."""

import importlib.abc
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def libraries() -> list[str]:
    """Return the folders of the interpreter's libraries and of the system's."""
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others = [one for one in sys.path if Path(one).name in {"site-packages", "dist-packages"}]
    linked = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [*own, *others, *_SYSTEM_LIBRARIES, *filter(os.path.isabs, linked)]


def importable_outside(folders: Sequence[str]) -> dict[str, ModuleSpec]:
    """Find the modules and packages in the other folders on `sys.path`.

    Such a folder may hold secrets beside code: a project's own holds its .env and .local. So
    neither the folder nor the list of its files can stay readable.
    """
    found: dict[str, ModuleSpec] = {}
    for entry in sys.path:
        if any(Path(entry).is_relative_to(one) for one in folders):
            continue
        for name in _names_in(entry):
            spec = PathFinder.find_spec(name)
            # An import takes the first module of a name, which may be in another folder.
            if spec and any(Path(one).is_relative_to(entry) for one in code_of([spec])):
                found[name] = spec
    return found


def code_of(specs: Iterable[ModuleSpec]) -> Iterator[str]:
    """Return the file of each module and the folder of each package."""
    for spec in specs:
        if spec.submodule_search_locations is not None:
            yield from spec.submodule_search_locations
        elif spec.origin:
            yield spec.origin
            if spec.cached:
                yield spec.cached


class KnownModules(importlib.abc.MetaPathFinder):
    """Finds modules in folders that can't be listed any more, where they were before."""

    def __init__(self, specs: Mapping[str, ModuleSpec]) -> None:
        """Find modules by their specs."""
        self._specs = specs

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of a module that was importable."""
        return self._specs.get(fullname)


def _names_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as files:
            found = {one.name.partition(".")[0] for one in files if _is_module(one)}
    except OSError:  # An archive, or a folder that does not exist.
        return set()
    return {name for name in found if name.isidentifier()}


def _is_module(file: os.DirEntry[str]) -> bool:
    if not file.is_dir():
        return file.name.endswith(_SUFFIXES)
    try:
        # A folder is a package with or without an `__init__.py`, but not without code.
        return file.name.isidentifier() and any(
            one.endswith(_SUFFIXES)
            for one in os.listdir(file.path)  # noqa: PTH208
        )
    except OSError:
        return False
