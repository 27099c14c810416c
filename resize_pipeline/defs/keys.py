"""The keys of resources: several pipelines can share a code location, each with its own servers."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import dagster as dg

from resize_pipeline.defs.names import Names

P = ParamSpec("P")
R = TypeVar("R")


def with_keys(names: Names) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: Dagster then looks a function's resources up by the pipeline's keys.

    Dagster takes the key of a resource from the parameter's name, so the parameters are renamed:
    `minio` to `photos_minio`. The default pipeline has the names as they are.

    Args:
        names: the names of the pipeline's definitions.
    """
    return lambda function: _renamed(names, function)


def _renamed(names: Names, function: Callable[P, R]) -> Callable[P, R]:
    signature = inspect.signature(function)
    keys = {
        name: names.of(name)
        for name, parameter in signature.parameters.items()
        if inspect.isclass(parameter.annotation)
        and issubclass(parameter.annotation, dg.ConfigurableResource)
    }
    former = {key: name for name, key in keys.items() if key != name}
    if not former:
        return function

    def called(*args: Any, **kwargs: Any) -> Any:
        renamed = {former.get(name, name): value for name, value in kwargs.items()}
        return cast("Callable[..., Any]", function)(*args, **renamed)

    def generated(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from called(*args, **kwargs)

    # Dagster asks whether a function is a generator, and begins any other one at once.
    wrapper = functools.wraps(function)(
        generated if inspect.isgeneratorfunction(function) else called
    )
    wrapper.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[
            parameter.replace(name=keys.get(name, name))
            for name, parameter in signature.parameters.items()
        ]
    )
    return cast("Callable[P, R]", wrapper)
