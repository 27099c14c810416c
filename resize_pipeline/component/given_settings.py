"""Builds settings from what a component was given, and from nothing else."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from resize_pipeline.errors import UserError
from resize_pipeline.renditions.spec import shown
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import DEFAULT_PIPELINE_NAME, BasicSettings
from resize_pipeline.settings.local import LocalSettings
from resize_pipeline.validators import nearest

LIKENESS = 0.6
"""`difflib` ratio from which on a setting is suggested for a misspelt one."""
_PLACEHOLDER = SecretStr("https://the-value-is-in-a-variable.invalid")
"""Stands for a secret, which the definitions name and do not hold. One of them must be a URL."""
_OF_NOTICES = {"ui_host", "ui_port"}
"""What leads from a notice to the UI."""


class GivenSettings(Settings):
    """Settings that do not read the environment, which may be that of another pipeline."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments as the only source."""
        del settings_cls
        return (init_settings,)


def given_settings(
    attributes: Mapping[str, Any],
    further: Mapping[str, Any],
    secrets: Collection[str],
    folder: Path,
) -> Settings:
    """Build the settings of a component.

    Args:
        attributes: the settings that are attributes of the component.
        further: those below its `settings`.
        secrets: the secrets that variables are named for.
        folder: what relative paths are relative to.

    Raises:
        UserError: a value is wrong, or there is no such setting.
    """
    if attributes["pipeline_name"] == DEFAULT_PIPELINE_NAME:
        msg = f"name: {DEFAULT_PIPELINE_NAME!r} adds nothing to names, choose another one"
        raise UserError(msg)
    _check_names(further, attributes)
    values: dict[str, Any] = {name: _value(name, one, folder) for name, one in further.items()}
    values |= {**attributes} | dict.fromkeys(secrets, _PLACEHOLDER)
    # Otherwise servers on this machine need ports that `up` can open.
    values["local_stack"] = False
    try:
        return GivenSettings(**values)
    except ValidationError as error:
        raise UserError("; ".join(map(_described, error.errors(include_url=False)))) from None


def _check_names(further: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    secret = {name for name in Settings.model_fields if SecretStr in _types(name)}
    without_effect = {*BasicSettings.model_fields, *LocalSettings.model_fields} - _OF_NOTICES
    allowed = {*Settings.model_fields} - secret - without_effect - {*attributes}
    for name in further:
        if name in allowed:
            continue
        if name in secret:
            msg = f"settings, {name}: a secret, name its variable with an attribute instead"
        elif name in attributes:
            msg = f"settings, {name}: an attribute of the component, set that instead"
        elif name in without_effect:
            msg = f"settings, {name}: has no effect in a component, remove it"
        else:
            meant = nearest(name, allowed, LIKENESS)
            hint = f"did you mean {meant}?" if meant else "docs/settings.md lists all of them"
            msg = f"settings, {shown(name)}: no such setting; {hint}"
        raise UserError(msg)


def _value(name: str, value: Any, folder: Path) -> str | Path:
    """Return a value as a variable would have it, so that any text may be a number in YAML."""
    if isinstance(value, list | dict | None):
        msg = f"settings, {name}: {shown(value)} must be text, a number, true or false"
        raise UserError(msg)
    return folder.absolute() / str(value) if Path in _types(name) else str(value)


def _types(name: str) -> tuple[Any, ...]:
    annotation = Settings.model_fields[name].annotation
    return (annotation, *get_args(annotation))


def _described(problem: ErrorDetails) -> str:
    is_ours = problem["type"] == "value_error"
    reason = str(problem["ctx"]["error"]) if is_ours else problem["msg"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    if not problem["loc"]:
        # Of several settings, which the message names as variables.
        return f"{reason} (here in lower case below `settings`, and secrets by `..._variable`)"
    name = str(problem["loc"][0])
    # In an address, the part before an @ may be a password.
    value = "" if "@" in str(problem["input"]) else f"{shown(problem['input'])} "
    return f"{'name' if name == 'pipeline_name' else name}: {value}{reason}"
