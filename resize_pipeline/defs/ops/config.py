"""The configuration of the `plan` op, which is all that a launch can configure."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import dagster as dg
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resize_pipeline.delivery.events import KEY_MAX_BYTES
from resize_pipeline.errors import UserError

LISTED_MAX_OBJECTS = 5_000
"""Most objects that a run takes from a listing, so that its memory and its steps are bounded
whatever the bucket holds; a follow-up run continues where it ended. Also the most that a
configuration may name."""
OFFSET_RANGES_MAX = 10_000
"""Most offset ranges of a run: the sensor requests at most one for each partition of the topic."""
ID_MAX = 64
"""Longest topic id, offset range or digest; a Kafka topic id has 22 characters."""
SHOWN = 80


def _as_long_as_a_key(value: str) -> str:
    if len(value.encode(errors="surrogatepass")) > KEY_MAX_BYTES:
        msg = f"must have at most {KEY_MAX_BYTES} bytes, as an S3 key"
        raise ValueError(msg)
    return value


Id = Annotated[str, Field(max_length=ID_MAX)]
Key = Annotated[str, AfterValidator(_as_long_as_a_key)]


class PlanConfig(BaseModel):
    """What a run covers; with nothing set, every object of the run's partitions.

    Without offset ranges and objects a run lists the bucket, and makes only renditions that are
    missing or outdated.

    Not a `dg.Config`, whose strings accept `{env: NAME}`: anyone who may launch a run could have a
    secret written into a log line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    topic_id: Id = ""
    """Id of the topic that the offset ranges belong to."""
    offset_ranges: Annotated[list[Id], Field(max_length=OFFSET_RANGES_MAX)] = []
    """Offset ranges as PARTITION:START-END, with an exclusive end."""
    objects: Annotated[list[Key], Field(max_length=LISTED_MAX_OBJECTS)] = []
    """Keys in the source bucket."""
    version_id: Key = ""
    """Fail the run unless this is the newest version of its one object."""
    prefix: Key = ""
    """Every object whose key starts with this prefix, in all partitions."""
    reconcile: bool = False
    """Every object of the bucket, in all partitions."""
    force: bool = False
    """Remake renditions that are current already."""
    start_after: Key = ""
    """When listing, only keys after this one; set by follow-up runs."""
    postponed_by: Id = ""
    """Id of a run: the objects that it left to the slow lane; set by `slow_lane_sensor`."""
    spec_digest: Id = ""
    """Digest of the specs that the run was planned with; other specs fail it."""

    @classmethod
    def schema_of_op(cls) -> dict[str, dg.Field]:
        """Return the fields for Dagster, each of a plain type."""
        return {
            name: dg.Field(
                [str] if isinstance(field.default, list) else type(field.default),
                default_value=field.default,
                description=field.description,
            )
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Self:
        """Read the configuration of a run.

        Raises:
            UserError: a value is too long; the message names the field and its bound.
        """
        try:
            return cls.model_validate(config)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            value = problem["input"]
            shown = f"{len(value)} entries" if isinstance(value, list) else repr(value)[:SHOWN]
            name = ".".join(str(part) for part in problem["loc"])
            reason = problem["msg"].removeprefix("Value error, ")
            msg = f"{name} in the run's configuration: {shown}: {reason}; launch it with less data"
            raise UserError(msg) from error
