"""What each batch came to, as an observation of `raw_images` that the metrics add up."""

from collections.abc import Sequence

import dagster as dg

from resize_pipeline.defs.names import Names
from resize_pipeline.delivery.batches import Settled
from resize_pipeline.delivery.outcomes import Outcomes
from resize_pipeline.resources.pipeline import PipelineResource

OUTCOMES = "outcomes"
"""The name of the metadata."""


def observe_outcomes(
    context: dg.OpExecutionContext,
    pipeline: PipelineResource,
    settled: Sequence[Settled],
) -> None:
    """Record what a batch came to.

    For each batch, because a run that is killed later keeps what it did until then.

    Args:
        context: of the step.
        pipeline: the settings.
        settled: the objects of the batch.
    """
    if not settled:
        return
    found = Outcomes.of(settled).model_dump(mode="json")
    context.log_event(
        dg.AssetObservation(
            Names(pipeline.pipeline_name).raw_images,
            partition=context.partition_key if context.has_partition_key else None,
            metadata={OUTCOMES: dg.MetadataValue.json(found)},
        )
    )
