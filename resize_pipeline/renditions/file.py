"""Reads the spec file, and checks what a single spec cannot: that no two renditions overlap."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, combinations, islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from resize_pipeline.errors import UserError, one_line
from resize_pipeline.renditions.analyses import Analysis, repeated_columns
from resize_pipeline.renditions.document import read_document
from resize_pipeline.renditions.spec import Rendition, shown
from resize_pipeline.validators import nearest

_PACKAGES = {"blurhash": "blurhash_rs", "perceptual_hash": "imagehash"}
"""What built-in analyses need of the extra `analyses`."""
PROBLEMS_MAX = 20
"""Most problems in a message: a spec of 256 KiB can have millions."""
FIELD_LIKENESS = 0.6
"""`difflib` ratio from which on a known field is suggested for a misspelt one: `widht` has 0.8."""


def load_renditions(path: Path, source_bucket: str) -> tuple[Rendition, ...]:
    """Read the spec file.

    Args:
        path: the YAML file, a mapping `renditions:` from names to fields.
        source_bucket: the bucket that pictures are read from; no rendition may use it.

    Returns:
        The renditions in the file's order, at least one.

    Raises:
        UserError: the file cannot be read or breaks a rule; the message is one line with the first
            problems, each naming rendition, field, value and what is allowed.
    """
    renditions: list[Rendition] = []
    problems: list[str] = []
    for name, fields in read_document(path).renditions.items():
        if len(problems) > PROBLEMS_MAX:
            break
        if not isinstance(fields, dict):
            problems.append(f"rendition {shown(name)}: {shown(fields)} must be a mapping of fields")
            continue
        if "name" in fields:
            problems.append(f"rendition {shown(name)}, name: not a field, the key is the name")
            continue
        try:
            renditions.append(Rendition.model_validate({"name": name, **fields}))
        except ValidationError as error:
            problems += [
                f"rendition {shown(name)}, {problem}" for problem in _problems(error, Rendition)
            ]
    clashes = _clashes(renditions, source_bucket)
    _refuse(path, chain(problems, _missing(renditions), clashes))
    return tuple(renditions)


def load_analyses(path: Path, catalog_bucket: str) -> tuple[Analysis, ...]:
    """Read the analyses of the spec file.

    Args:
        path: the YAML file, whose mapping `analyses:` leads from names to fields, if there is one.
        catalog_bucket: CATALOG_BUCKET, where the results are kept; empty if there is none.

    Returns:
        The analyses in the file's order.

    Raises:
        UserError: the file can't be read or breaks a rule, or nothing can keep the results; the
            message is as in `load_renditions`.
    """
    given = read_document(path).analyses
    analyses: list[Analysis] = []
    problems: list[str] = []
    for name, fields in islice(given.items(), PROBLEMS_MAX + 1):
        if not isinstance(fields, dict | None):
            problems.append(f"analysis {shown(name)}: {shown(fields)} must be a mapping of fields")
            continue
        if fields and "name" in fields:
            problems.append(f"analysis {shown(name)}, name: not a field, the key is the name")
            continue
        try:
            analyses.append(Analysis.model_validate({"name": name, **(fields or {})}))
        except ValidationError as error:
            problems += [
                f"analysis {shown(name)}, {problem}" for problem in _problems(error, Analysis)
            ]
    _refuse(path, chain(problems, repeated_columns(analyses), _missing_for_analyses(analyses)))
    if analyses and not catalog_bucket:
        msg = (
            f"{path}: analyses are kept in the catalogue, and there is none: set CATALOG_BUCKET to "
            "a bucket of its own, or remove 'analyses'"
        )
        raise UserError(msg)
    return tuple(analyses)


def _refuse(path: Path, problems: Iterable[str]) -> None:
    found = list(islice(problems, PROBLEMS_MAX + 1))
    if found:
        more = "; and more" * (len(found) > PROBLEMS_MAX)
        msg = f"{path}: {'; '.join(found[:PROBLEMS_MAX])}{more}"
        raise UserError(msg)


def check_catalog_bucket(bucket: str, source_bucket: str, renditions: Sequence[Rendition]) -> None:
    """Refuse a bucket of the catalogue that holds pictures, too.

    Args:
        bucket: CATALOG_BUCKET; empty if there is no catalogue.
        source_bucket: SOURCE_BUCKET.
        renditions: the specs.

    Raises:
        UserError: the bucket is that of originals or renditions.
    """
    if bucket and bucket in {source_bucket, *(one.bucket for one in renditions)}:
        msg = f"CATALOG_BUCKET={bucket} is a bucket of pictures: choose one of its own"
        raise UserError(msg)


def _missing(renditions: Sequence[Rendition]) -> Iterator[str]:
    """Describe what the renditions need and this installation lacks."""
    for one in renditions:
        if one.jpeg_encoder == "jpegli" and find_spec("pyjpegli") is None:
            yield (
                f"rendition {one.name!r}, jpeg_encoder: 'jpegli' is not installed here, run "
                "pip install 'resize-pipeline[jpegli]', or remove the field"
            )


def _missing_for_analyses(analyses: Sequence[Analysis]) -> Iterator[str]:
    for one in analyses:
        needed = _PACKAGES.get(one.name)
        if needed and find_spec(needed) is None:
            yield (
                f"analysis {one.name!r}: is not installed here, run "
                "pip install 'resize-pipeline[analyses]', or remove it"
            )
        if one.function is None:
            continue
        package = one.function.partition(":")[0].partition(".")[0]
        # Nothing is imported: that is left to a child without secrets.
        if package not in sys.modules and find_spec(package) is None:
            yield (
                f"analysis {one.name!r}, function: there is no module {package!r} here, install "
                "its package, or add its folder to PYTHONPATH"
            )


def _clashes(renditions: Sequence[Rendition], source_bucket: str) -> Iterator[str]:
    for one in renditions:
        if one.bucket == source_bucket:
            yield (
                f"rendition {one.name!r}, bucket: {one.bucket!r} is SOURCE_BUCKET, so the pipeline "
                "would read its own output, choose another bucket"
            )
    for one, two in combinations(renditions, 2):
        if one.bucket == two.bucket and (
            one.prefix.startswith(two.prefix) or two.prefix.startswith(one.prefix)
        ):
            yield (
                f"renditions {one.name!r} and {two.name!r}, prefix: {one.prefix!r} and "
                f"{two.prefix!r} in bucket {one.bucket!r} are equal or nested, choose separate "
                "prefixes or buckets"
            )


def _problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    problems: list[str] = []
    for problem in error.errors(include_url=False)[: PROBLEMS_MAX + 1]:
        field = one_line(".".join(str(part) for part in problem["loc"]))
        value = shown(problem["input"])
        match problem["type"]:
            case "missing":
                problems.append(f"{field}: missing, must be set")
            case "extra_forbidden":
                allowed = [name for name in model.model_fields if name != "name"]
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
