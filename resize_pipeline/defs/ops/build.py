"""The ops of a pipeline's runs, with names and resources of its own."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dagster as dg

from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.ops.batch import download, resize, upload
from resize_pipeline.defs.ops.config import PlanConfig
from resize_pipeline.defs.ops.plan import plan
from resize_pipeline.defs.ops.publish import build_publish
from resize_pipeline.defs.ops.record import build_record
from resize_pipeline.defs.partitions import TimePartitions
from resize_pipeline.delivery.batches import Batch, Plan, Uploaded
from resize_pipeline.delivery.flow import BatchInFlight
from resize_pipeline.instance.internals import PRIORITY_TAG
from resize_pipeline.renditions.spec import Rendition


class Steps(NamedTuple):
    """The steps of a run; within the graph each has the short name."""

    plan: dg.PendingNodeInvocation[dg.OpDefinition]
    download: dg.PendingNodeInvocation[dg.OpDefinition]
    resize: dg.PendingNodeInvocation[dg.OpDefinition]
    upload: dg.PendingNodeInvocation[dg.OpDefinition]
    publish: dg.PendingNodeInvocation[dg.OpDefinition]
    record: dg.PendingNodeInvocation[dg.OpDefinition] | None


def build_steps(
    names: Names,
    renditions: Sequence[Rendition],
    partitions: TimePartitions,
    *,
    has_catalog: bool,
) -> Steps:
    """Build the steps; those of a later batch wait, because later steps have a higher priority."""
    scratch = names.io_manager

    def step(
        function: Callable[..., Any], priority: int, **options: Any
    ) -> dg.PendingNodeInvocation[dg.OpDefinition]:
        name = function.__name__
        op = dg.op(name=names.of(name), tags={PRIORITY_TAG: str(priority)}, **options)
        return op(with_keys(names)(function)).alias(name)

    in_flight = dg.Out(BatchInFlight, io_manager_key=scratch)
    record = build_record(names, partitions) if has_catalog else None
    return Steps(
        plan=step(
            plan,
            0,
            ins={"source": dg.In(dg.Nothing)},
            out={
                "planned": dg.Out(Plan, io_manager_key=scratch),
                "batches": dg.DynamicOut(Batch, io_manager_key=scratch),
            },
            config_schema=PlanConfig.schema_of_op(),
        ),
        download=step(download, 1, out=in_flight),
        resize=step(resize, 2, ins={"downloaded": dg.In(BatchInFlight)}, out=in_flight),
        upload=step(
            upload,
            3,
            ins={"resized": dg.In(BatchInFlight)},
            out=dg.Out(Uploaded, io_manager_key=scratch),
        ),
        publish=build_publish(names, renditions).alias("publish"),
        record=record.alias("record") if record else None,
    )
