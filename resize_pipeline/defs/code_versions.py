"""Finds the partitions that were last made with another spec, by Dagster's code versions.

To Dagster, the newest materialization of a partition stands for all of it. A run over part of a
partition, such as the sensor's, must not make the rest look current, so its materialization keeps
the previous code version. A run over whole partitions records the current one. A reconciliation
covers everything, so it also records the current code version for partitions that are stale and for
those that are older than the rendition and lack it.

Dagster returns the data versions of all partitions in one query, but not their code versions, so a
data version starts with the code version. It ends with the run id, because runs change the data.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator

import dagster as dg

from resize_pipeline.defs.names import Names
from resize_pipeline.instance.event_log import latest_tag_by_partition
from resize_pipeline.instance.internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from resize_pipeline.renditions.spec import Rendition

REFRESHED_MAX = 5_000
"""Most partitions of a rendition that one reconciliation marks as made with the current spec. Each
is an event in Dagster's storage; the next reconciliation continues."""


def version_tags(code_version: str, run_id: str) -> dict[str, str]:
    """Return the tags of a materialization that `stale_partitions` reads."""
    return {CODE_VERSION_TAG: code_version, DATA_VERSION_TAG: f"{code_version}.{run_id[:8]}"}


def stale_partitions(
    instance: dg.DagsterInstance,
    names: Names,
    rendition: Rendition,
    among: Collection[str] | None = None,
) -> dict[str, str]:
    """Return the partitions last made with another spec, in order, each with its code version.

    Args:
        instance: the Dagster instance.
        names: the names of the pipeline's assets.
        rendition: the rendition with its current spec.
        among: the partitions of interest; None for all. The result may contain others.
    """
    asset = names.asset(rendition.name)
    found = latest_tag_by_partition(instance, asset, DATA_VERSION_TAG, among)
    versions = {partition: tag.partition(".")[0] for partition, tag in sorted(found.items())}
    return {one: version for one, version in versions.items() if version != rendition.code_version}


def unmade_partitions(
    instance: dg.DagsterInstance, names: Names, renditions: Iterable[Rendition]
) -> dict[str, list[str]]:
    """Return for each rendition the partitions, in order, where only others were materialized."""
    made = {
        one.name: instance.get_materialized_partitions(names.asset(one.name)) for one in renditions
    }
    everywhere = set[str]().union(*made.values())
    return {name: sorted(everywhere - partitions) for name, partitions in made.items()}


def code_version_of_part(context: dg.OpExecutionContext, names: Names, rendition: Rendition) -> str:
    """Return the code version to record after a run over only a part of its partitions."""
    partitions = context.partition_keys
    stale = stale_partitions(context.instance, names, rendition, partitions)
    return next((stale[one] for one in partitions if one in stale), rendition.code_version)


def refreshed(
    context: dg.OpExecutionContext, names: Names, rendition: Rendition, among: Iterable[Rendition]
) -> Iterator[dg.AssetMaterialization]:
    """Yield materializations that mark stale and unmade partitions as current.

    Args:
        context: the context of a reconciliation, which materializes its own partitions itself.
        names: the names of the pipeline's assets.
        rendition: the rendition with its current spec.
        among: all renditions.
    """
    # The tags that Dagster sets for an output; without them it would report a new dependency.
    tags = {
        get_input_data_version_tag(names.raw_images): DEFAULT_DATA_VERSION.value,
        get_input_event_pointer_tag(names.raw_images): NULL_EVENT_POINTER,
        **version_tags(rendition.code_version, context.run_id),
    }
    stale = stale_partitions(context.instance, names, rendition)
    unmade = unmade_partitions(context.instance, names, among)[rendition.name]
    others = (one for one in (*stale, *unmade) if one not in context.partition_keys)
    for partition in itertools.islice(others, REFRESHED_MAX):
        yield dg.AssetMaterialization(
            names.asset(rendition.name),
            description="Reconciled: everything in it is made with the current spec.",
            partition=partition,
            metadata={
                "images": 0,
                "rendition bytes": 0,
                "uri": f"s3://{rendition.bucket}/{rendition.prefix}",
            },
            tags=tags,
        )
