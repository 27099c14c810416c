"""Parses the YAML of a spec file, which may turn out to be any other file.

A setting or an option can name any file, such as one with passwords. An error quotes a file only
once it is known to be a spec: a mapping with the key `renditions`, and perhaps `analyses`.
"""

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from resize_pipeline.errors import UserError, one_line
from resize_pipeline.renditions.spec import shown

FILE_MAX_BYTES = 256 * 1024
"""Largest spec file that is parsed; thousands of renditions fit."""
NUMBER_MAX = 40
"""Longest number in characters. Python refuses to print more than 4,300 digits, and PyYAML computes
numbers of base 60 in time quadratic in their length."""
MERGED_MAX = 1_000
"""Most entries of a mapping once its merge keys (`<<`) are resolved: a few nested lines of them
would make billions."""

_MAPPING, _TEXT = "tag:yaml.org,2002:map", "tag:yaml.org,2002:str"
_KEYS = {
    (_TEXT, "renditions", _MAPPING),
    (_TEXT, "analyses", _MAPPING),
    (_TEXT, "analyses", "tag:yaml.org,2002:null"),
}
"""The keys of a spec, each with its tag and that of its value."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
# PyYAML's names of tokens, and single characters other than letters and digits.
_HARMLESS = re.compile(r"'(?:<[a-z ]+>|\\t|[^\w])'")


class SpecDocument(NamedTuple):
    """A spec file: from names to whatever it has for them."""

    renditions: dict[object, object]
    analyses: dict[object, object]


def read_document(path: Path) -> SpecDocument:
    """Read a spec file.

    Raises:
        UserError: the file can't be read or is not a spec; the one-line message quotes only specs.
    """
    text = _read(path)
    try:
        # Still a safe loader: the subclass only adds checks.
        loader = _Loader(text)
    except (yaml.YAMLError, ValueError) as error:
        msg = (
            f"{path}: not YAML: it has bytes or characters that YAML does not allow: save it as "
            "UTF-8 text"
        )
        raise UserError(msg) from error
    try:
        root = _composed(path, loader)
        document = _constructed(path, loader, root)
    finally:
        loader.dispose()
    return SpecDocument(
        cast("dict[object, object]", document["renditions"]),
        cast("dict[object, object]", document.get("analyses") or {}),
    )


class _Loader(yaml.SafeLoader):
    """Refuses repeated keys, of which PyYAML would silently keep the last, and huge mappings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"{shown(key.value)} is given twice; keep one of the two"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MERGED_MAX:
            problem = f"merge keys give a mapping more than {MERGED_MAX} entries"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        msg = (
            f"{path.absolute()}: cannot be read: {error.strerror}; run this in the project's "
            "folder, or set RENDITIONS_FILE to a YAML file of renditions"
        )
        raise UserError(msg) from error
    if len(text) > FILE_MAX_BYTES:
        msg = (
            f"{path}: larger than {FILE_MAX_BYTES} bytes, the most allowed for a spec file: remove "
            "comments or renditions"
        )
        raise UserError(msg)
    return text


def _composed(path: Path, loader: _Loader) -> yaml.MappingNode:
    """Return the file's YAML tree, once its root is known to be that of a spec."""
    try:
        root: object = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        problem = _QUOTED.sub(_harmless, error.problem or "it can't be parsed")
        # Only these errors come from the layout of the text.
        hint = "; check the indentation" if isinstance(error, ScannerError | ParserError) else ""
        raise UserError(f"{path}{_line(error)}: {problem}{hint}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        msg = (
            f"{path}: not YAML: it has characters that YAML does not allow, or is nested too "
            "deeply: save it as UTF-8 text, with each field on one line below its rendition"
        )
        raise UserError(msg) from None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    # A repeated key is a mistake in a spec; the loader reports it.
    # Explicit tags, such as `!!set`, would make something else of the same text.
    is_spec = any(key.value == "renditions" and value.value for key, value in pairs) and all(
        isinstance(key, yaml.ScalarNode) and (key.tag, key.value, value.tag) in _KEYS
        for key, value in pairs
    )
    if not is_spec or not isinstance(root, yaml.MappingNode) or root.tag != _MAPPING:
        msg = (
            f"{path}: not a file of renditions: must be a mapping with the key 'renditions', "
            "which maps at least one name to its fields, and perhaps the key 'analyses'"
        )
        raise UserError(msg)
    return root


def _constructed(path: Path, loader: _Loader, root: yaml.MappingNode) -> dict[str, object]:
    """Return the values of a spec's YAML tree."""
    for node in _nodes(root):
        if node.tag in _NUMBERS and len(node.value) > NUMBER_MAX:
            line = node.start_mark.line + 1
            msg = (
                f"{path}, line {line}: a number of more than {NUMBER_MAX} characters: write it "
                "with fewer, or in quotes if it is text"
            )
            raise UserError(msg)
    try:
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}{_line(error)}: {error.problem or error.context}") from error
    # The last two are raised for a date that does not exist and for very deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{path}: not YAML: {one_line(str(error))}: put a value that is text in quotes"
        raise UserError(msg) from error
    # PyYAML expects a value to match its explicit tag, such as `!!bool`.
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        msg = f"{path}: a value does not match its tag (`!!`): remove the tag"
        raise UserError(msg) from error


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield each node once; aliases turn the tree into a graph."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        match node:
            case yaml.MappingNode():
                waiting += [one for pair in node.value for one in pair]
            case yaml.SequenceNode():
                waiting += node.value
            case _:
                pass


def _harmless(quoted: re.Match[str]) -> str:
    return quoted[0] if _HARMLESS.fullmatch(quoted[0]) else "something else"


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}" if mark else ""
