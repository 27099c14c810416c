"""TODO."""

from collections.abc import Hashable
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import (
    ValidationError,
)
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from resize_pipeline.errors import UserError
from resize_pipeline.renditions.spec import Rendition, shown
from resize_pipeline.validators import nearest

FIELD_LIKENESS = 0.6
"""Of a field's name to be offered for one that is none: `widht` has 0.8 of width (`difflib`)."""


FILE_MAX_BYTES = 256 * 1024
"""Largest spec file that is parsed; thousands of renditions fit."""


def load_renditions(path: Path, source_bucket: str) -> tuple[Rendition, ...]:
    """Read the spec file.

    Args:
        path: the YAML file, a mapping `renditions:` of names to fields.
        source_bucket: the bucket that pictures are read from; no rendition may go there.

    Returns:
        The renditions in the file's order, at least one.

    Raises:
        UserError: the file cannot be read or says something that is not allowed; the message is
            one line with every problem, each naming rendition, field, value and what is allowed.
    """
    renditions: list[Rendition] = []
    problems: list[str] = []
    for name, fields in _read(path).items():
        if not isinstance(fields, dict):
            problems.append(f"rendition {shown(name)}: {shown(fields)} must be a mapping of fields")
            continue
        if "name" in fields:
            problems.append(f"rendition {shown(name)}, name: not a field, the key is the name")
            continue
        try:
            renditions.append(Rendition.model_validate({"name": name, **fields}))
        except ValidationError as error:
            problems += [f"rendition {shown(name)}, {problem}" for problem in _problems(error)]
    problems += [
        f"rendition {one.name!r}, bucket: {one.bucket!r} is SOURCE_BUCKET, so the pipeline would "
        "read its own output, must be another bucket"
        for one in renditions
        if one.bucket == source_bucket
    ]
    problems += [
        f"renditions {one.name!r} and {two.name!r}, prefix: {one.prefix!r} and {two.prefix!r} in "
        f"bucket {one.bucket!r} are equal or nested, must be apart, or the buckets different"
        for one, two in combinations(renditions, 2)
        if one.bucket == two.bucket
        and (one.prefix.startswith(two.prefix) or two.prefix.startswith(one.prefix))
    ]
    if problems:
        msg = f"{path}: {'; '.join(problems)}"
        raise UserError(msg)
    return tuple(renditions)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a repeated key, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"{shown(key.value)} is given twice; must be given once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[object, object]:
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
        msg = f"{path}: larger than {FILE_MAX_BYTES} bytes, the most that is allowed"
        raise UserError(msg)
    try:
        # A safe loader: the subclass only adds a check.
        document: object = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        # Not of what the loader above refuses, which is well-formed.
        is_syntax = isinstance(error, ScannerError | ParserError)
        hint = "; check the indentation" if is_syntax else ""
        msg = f"{path}{line}: {error.problem or error.context}{hint}"
        raise UserError(msg) from error
    # PyYAML raises the last two for a date that does not exist and for very deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{path}: not YAML: {' '.join(str(error).split())}"
        raise UserError(msg) from error
    content = cast("dict[object, object]", document) if isinstance(document, dict) else {}
    renditions = content.get("renditions")
    if set(content) != {"renditions"} or not isinstance(renditions, dict) or not renditions:
        msg = (
            f"{path}: {shown(document)} must be a mapping with the one key 'renditions', "
            "which maps at least one name to its fields"
        )
        raise UserError(msg)
    return cast("dict[object, object]", renditions)


def _problems(error: ValidationError) -> list[str]:
    problems: list[str] = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        value = shown(problem["input"])
        match problem["type"]:
            case "missing":
                problems.append(f"{field}: missing, must be given")
            case "extra_forbidden":
                allowed = [name for name in Rendition.model_fields if name != "name"]
                meant = nearest(field, allowed, FIELD_LIKENESS)
                hint = f", did you mean {meant}?" if meant else ";"
                problems.append(
                    f"{field}: {value}: no such field{hint} must be one of {', '.join(allowed)}"
                )
            case "conflict":
                problems += problem["ctx"]["problems"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
            case "value_error":
                problems.append(f"{field}: {value} {problem['ctx']['error']}")  # pyright: ignore[reportTypedDictNotRequiredAccess]
            case _:
                reason = problem["msg"].removeprefix("Input should be ")
                problems.append(f"{field}: {value} must be {reason}")
    return problems
