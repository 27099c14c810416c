"""Compares objects with the models of Kubernetes' own Python client, made from its OpenAPI."""

import re
from collections.abc import Iterator
from typing import Any

from kubernetes import client

PRIMITIVES = {"str": str, "bool": bool, "int": int, "float": (int, float), "datetime": str}
LIST = re.compile(r"list\[(.+)\]")
DICT = re.compile(r"dict\(str, (.+)\)|dict\[str, (.+)\]")


def model_of(manifest: dict[str, Any]) -> str:
    """Name the model of a manifest: apps/v1, StatefulSet is V1StatefulSet."""
    version = manifest["apiVersion"].rpartition("/")[2]
    return f"{version[0].upper()}{version[1:]}{manifest['kind']}"


def problems(value: Any, model: str, where: str = "", *, partial: bool = False) -> Iterator[str]:
    """Find what the model does not allow.

    Args:
        value: of YAML.
        model: its name, or a type as the models write it.
        where: what the problems are named by.
        partial: the value is merged into another, and may lack what is required.
    """
    if model == "object":
        return
    if model in PRIMITIVES:
        if not isinstance(value, PRIMITIVES[model]) or (
            isinstance(value, bool) and model != "bool"
        ):
            yield f"{where}: {value!r} is no {model}"
        return
    if match := LIST.fullmatch(model):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for index, item in enumerate(value):
            yield from problems(item, match[1], f"{where}[{index}]")
        return
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no object"
        return
    if match := DICT.fullmatch(model):
        for key, item in value.items():
            yield from problems(item, match[1] or match[2], f"{where}.{key}")
        return
    yield from _of_object(value, getattr(client, model), where, partial=partial)


def _of_object(value: dict[str, Any], model: Any, where: str, *, partial: bool) -> Iterator[str]:
    names = {ours: name for name, ours in model.attribute_map.items()}
    for key, item in value.items():
        if key in names:
            yield from problems(item, model.openapi_types[names[key]], f"{where}.{key}")
        else:
            yield f"{where}.{key}: {model.__name__} has no such field"
    for key, name in names.items():
        if key not in value and not partial and _is_required(model, name):
            yield f"{where}.{key} is missing"


def _is_required(model: Any, name: str) -> bool:
    """Only a required field refuses to be set to None."""
    blank = model.__new__(model)
    blank.local_vars_configuration = client.Configuration()
    try:
        setattr(blank, name, None)
    except ValueError:
        return True
    return False
