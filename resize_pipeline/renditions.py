"""The rendition specs: what is made of every picture, and where it goes."""

import hashlib
import json
import keyword
import re
import reprlib
from collections.abc import Hashable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resize_pipeline.errors import UserError

RENDERER_VERSION = 1
"""Part of every digest. Raise it when `imaging` makes other bytes of the same spec, so that
renditions made before count as outdated."""

SIDE_MAX = 16383
"""Largest width and height in pixels: WebP's, the smallest limit among the formats written."""

FILE_MAX_BYTES = 256 * 1024
"""Largest spec file that is parsed; thousands of renditions fit."""

PREFIX_MAX_BYTES = 512
"""Largest prefix: half of the 1024 bytes that S3 allows a key, the rest is the source key's."""

# Dagster refuses these as names of outputs (dagster/_core/definitions/utils.py, DISALLOWED_NAMES),
# and Python's keywords with them; `raw_images` is the asset that renditions are made from.
RESERVED_NAMES = frozenset(
    {"context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"}
    | {"int", "str", "float", "bool", "input", "output", "type", "raw_images"}
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*(\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = 100
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _checked_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = "must be letters, digits and underscores and start with a letter"
        raise ValueError(msg)
    if keyword.iskeyword(value) or value in RESERVED_NAMES:
        msg = "is reserved by Python, by Dagster or by this project, take another name"
        raise ValueError(msg)
    return value


def _checked_bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        msg = (
            "must be an S3 bucket name: 3 to 63 lower-case letters, digits, dots and hyphens, "
            "a letter or digit at both ends, not an IP address"
        )
        raise ValueError(msg)
    return value


def _checked_prefix(value: str) -> str:
    # MinIO refuses keys with such segments; a prefix may end in the middle of a segment.
    *segments, _ = value.split("/")
    if (
        any(segment in {"", ".", ".."} for segment in segments)
        or not value.isprintable()
        or len(value.encode()) > PREFIX_MAX_BYTES
    ):
        msg = (
            f"must be the printable start of an S3 key, at most {PREFIX_MAX_BYTES} bytes, "
            "without a leading slash or '//', './', '../'"
        )
        raise ValueError(msg)
    return value


class Rendition(BaseModel):
    """One output spec, and the asset of the same name.

    Attributes:
        name: name of the rendition and of its asset.
        width: width in pixels of the box that the picture is fitted into.
        height: height in pixels of that box.
        fit: `inside`: scaled down to fit inside the box with its proportions kept, never enlarged.
        quality: encoder quality, 1 to 100; formats without loss ignore it.
        bucket: bucket that the rendition is written to.
        prefix: put in front of the source's key, as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_checked_name)]
    width: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    height: Annotated[int, Field(ge=1, le=SIDE_MAX)]
    fit: Literal["inside"] = "inside"
    quality: Annotated[int, Field(ge=1, le=100)] = 80
    bucket: Annotated[str, AfterValidator(_checked_bucket)]
    prefix: Annotated[str, AfterValidator(_checked_prefix)] = ""

    @property
    def digest(self) -> str:
        """16 hex digits that change when the rendition's bytes or its place may change.

        The name is not part of it: renaming a rendition leaves its objects current.
        """
        spec = {**self.model_dump(exclude={"name"}), "renderer": RENDERER_VERSION}
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def key_for(self, source_key: str) -> str:
        """Give the key of the rendition of the object with this key."""
        return self.prefix + source_key


def specs_digest(renditions: Iterable[Rendition]) -> str:
    """Name a set of rendition specs; another digest means that something else is asked for."""
    parts = sorted(f"{rendition.name} {rendition.digest}" for rendition in renditions)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


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
            problems.append(
                f"rendition {_shown(name)}: {_shown(fields)} must be a mapping of fields"
            )
            continue
        if "name" in fields:
            problems.append(f"rendition {_shown(name)}, name: not a field, the key is the name")
            continue
        try:
            renditions.append(Rendition.model_validate({"name": name, **fields}))
        except ValidationError as error:
            problems += [f"rendition {_shown(name)}, {problem}" for problem in _problems(error)]
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
                problem = f"{_shown(key.value)} is given twice; must be given once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[object, object]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        msg = (
            f"{path}: cannot be read: {error.strerror}; "
            "RENDITIONS_FILE must name a YAML file of renditions"
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
        msg = f"{path}{line}: {error.problem or error.context}"
        raise UserError(msg) from error
    # PyYAML raises the last two for a date that does not exist and for very deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{path}: not YAML: {' '.join(str(error).split())}"
        raise UserError(msg) from error
    content = cast("dict[object, object]", document) if isinstance(document, dict) else {}
    renditions = content.get("renditions")
    if set(content) != {"renditions"} or not isinstance(renditions, dict) or not renditions:
        msg = (
            f"{path}: {_shown(document)} must be a mapping with the one key 'renditions', "
            "which maps at least one name to its fields"
        )
        raise UserError(msg)
    return cast("dict[object, object]", renditions)


def _problems(error: ValidationError) -> list[str]:
    problems: list[str] = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"])
        value = _shown(problem["input"])
        match problem["type"]:
            case "missing":
                problems.append(f"{field}: missing, must be given")
            case "extra_forbidden":
                allowed = ", ".join(name for name in Rendition.model_fields if name != "name")
                problems.append(f"{field}: {value}: no such field; must be one of {allowed}")
            case "value_error":
                problems.append(f"{field}: {value} {problem['ctx']['error']}")  # pyright: ignore[reportTypedDictNotRequiredAccess]
            case _:
                reason = problem["msg"].removeprefix("Input should be ")
                problems.append(f"{field}: {value} must be {reason}")
    return problems


def _shown(value: object) -> str:
    """Show a value in one short line, however large or self-referring it is."""
    return _REPR.repr(value)
