"""Resources whose configuration is fixed when the definitions are built."""

import inspect
from collections.abc import Generator
from typing import Any

import dagster as dg


def closed(resource: dg.ConfigurableResource[Any]) -> dg.ResourceDefinition:
    """Return a definition of the resource with nothing to configure at launch.

    Dagster lets a run's configuration replace every field of a `ConfigurableResource`, with
    `{env: NAME}` for any variable: whoever may launch a run could send the secret key to an S3
    server of his own. `EnvVar` fields are still resolved when a run starts.

    The description lists the fields, because the UI shows no values of such a resource.
    """
    definition = resource.get_resource_definition()
    values: dict[str, Any] = definition.config_field.default_value  # pyright: ignore[reportOptionalMemberAccess]
    fields = "\n".join(f"- {name}: {_shown(value)}" for name, value in sorted(values.items()))

    def fixed(_: object) -> dict[str, Any]:
        return values

    configured = definition.configured(fixed, config_schema={})

    # Not `configured` itself, for which the UI shows the defaults of the class as its values, and
    # which makes four copies of the resource.
    def made() -> Any:
        resolved = configured.apply_config_mapping({"config": {}})
        if not resolved.success or resolved.value is None:
            msg = f"{type(resource).__name__}: a variable of its configuration is not set"
            raise dg.DagsterInvalidConfigError(msg, resolved.errors, values)
        return type(resource)(**resolved.value["config"])

    def create(_: dg.InitResourceContext) -> Any:
        return made()

    def create_with_hooks(context: dg.InitResourceContext) -> Generator[Any]:
        with made().yield_for_execution(context) as value:
            yield value

    has_hooks = any(
        getattr(type(resource), hook) is not getattr(dg.ConfigurableResource, hook)
        for hook in ("setup_for_execution", "teardown_after_execution")
    )
    return dg.ResourceDefinition(
        create_with_hooks if has_hooks else create,
        config_schema={},
        description=f"{inspect.getdoc(type(resource))}\n\n{fields}",
    )


def _shown(value: object) -> str:
    match value:
        case {"env": name}:
            return f"the variable `{name}`"
        case _:
            return f"`{value}`"
