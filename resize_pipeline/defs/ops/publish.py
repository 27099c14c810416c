"""The last step of a run: record a materialization of each selected rendition."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from resize_pipeline.defs.code_versions import code_version_of_part, refreshed, version_tags
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import in_words
from resize_pipeline.defs.slow_lane import tag_postponed
from resize_pipeline.delivery.batches import Covers, Plan, Status, Uploaded
from resize_pipeline.delivery.reconciliation import CURRENT
from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.contact_sheet import bytes_within, contact_sheet_markdown
from resize_pipeline.instance.internals import PRIORITY_TAG
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource

REJECTED_SHOWN = 100


def build_publish(names: Names, renditions: Sequence[Rendition]) -> dg.OpDefinition:
    """Build the last step, which has an output for each rendition."""
    out = dg.Out(dg.Nothing, is_required=False, io_manager_key=names.io_manager)

    @dg.op(
        name=names.of("publish"),
        out={rendition.name: out for rendition in renditions},
        tags={PRIORITY_TAG: "5"},
    )
    @with_keys(names)
    def publish(
        context: dg.OpExecutionContext,
        planned: Plan,
        uploaded: list[Uploaded],
        pipeline: PipelineResource,
        renderer: RendererResource,
    ) -> Iterator[dg.Output[None]]:
        """Record what was made as one materialization of each selected rendition."""
        total = Uploaded()
        for batch in uploaded:
            total.add(batch)
        seconds = time.time() - planned.started
        context.log.info(f"{in_words(total.statuses) or 'nothing to do'} in {seconds:.1f} s")
        total.statuses[Status.POSTPONED] += planned.postponed
        if total.statuses[Status.POSTPONED]:
            # A run of the slow lane makes the rest, so this one covers no partition whole.
            planned = replace(planned, covers=Covers.OBJECTS)
            tag_postponed(context, pipeline, total.statuses[Status.POSTPONED])
        selected = [one for one in renditions if one.name in context.selected_output_names]
        # Dagster stores metadata several times over, and all renditions show the same images.
        shown = min(selected, key=lambda one: one.width * one.height)
        for rendition in selected:
            sheet = _contact_sheet(context, total, pipeline, renderer) if rendition is shown else {}
            metadata = _metadata(rendition, planned, total, seconds)
            version = rendition.code_version
            if planned.covers is Covers.OBJECTS:
                version = code_version_of_part(context, names, rendition)
            if planned.covers is Covers.BUCKET:
                for event in refreshed(context, names, rendition, renditions):
                    context.log_event(event)
            yield dg.Output(
                None,
                rendition.name,
                metadata={**sheet, **metadata},
                tags=version_tags(version, context.run_id),
            )

    return publish


def _metadata(
    rendition: Rendition,
    planned: Plan,
    total: Uploaded,
    seconds: float,
) -> Mapping[str, Any]:
    images = total.images[rendition.name]
    metadata: dict[str, Any] = {
        "images": images,
        "smaller than asked": total.smaller[rendition.name],
        "current already": total.statuses[Status.CURRENT] + planned.listed[CURRENT],
        "rejected": total.statuses[Status.REJECTED],
        "missing": total.statuses[Status.MISSING],
        "postponed": total.statuses[Status.POSTPONED],
        "busy": total.statuses[Status.BUSY],
        "source bytes": total.bytes_in,
        "rendition bytes": total.bytes_out[rendition.name],
        "bytes saved": total.originals[rendition.name] - total.bytes_out[rendition.name],
        "images/s": round(images / seconds, 2) if seconds else 0.0,
        "uri": f"s3://{rendition.bucket}/{rendition.prefix}",
    }
    if planned.skipped:
        metadata["messages skipped"] = sum(planned.skipped.values())
    if total.rejected:
        metadata["rejected objects"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"key": settled.request.key, "reason": settled.reason})
                for settled in total.rejected[:REJECTED_SHOWN]
            ]
        )
    return metadata


def _contact_sheet(
    context: dg.OpExecutionContext,
    total: Uploaded,
    pipeline: PipelineResource,
    renderer: RendererResource,
) -> Mapping[str, Any]:
    """Have the sheet drawn in a child: what a child made is a stranger's picture still."""
    if not pipeline.contact_sheets or not total.sheet:
        return {}
    pictures = [picture for _, picture in sorted(total.sheet)]
    max_bytes = bytes_within(pipeline.contact_sheet_max_bytes)
    try:
        sheet = renderer.contact_sheet(pictures, max_bytes=max_bytes)
    except PermanentError as error:
        context.log.warning(f"no contact sheet: {error}")
        return {}
    if sheet is None:
        return {}
    return {"contact sheet": dg.MetadataValue.md(contact_sheet_markdown(sheet))}
