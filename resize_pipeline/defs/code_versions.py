"""Which partitions were last made by another spec, as Dagster's code versions say.

Dagster takes the newest materialization of a partition for all of it. A run over a part of one,
such as the sensor's, must not make the rest look as if the current spec had made it, so its
materialization keeps the code version that was there. A run over whole partitions has the current
one, and a reconciliation, which covers all, passes it on to those that are stale, and to those that
are older than the rendition and lack it.

Dagster can be asked for the data versions of all partitions at once, and not for code versions, so
a data version starts with the code version. It ends with the run, because runs change the data.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator

import dagster as dg

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
"""Most partitions of a rendition that a reconciliation marks as made by the current spec, because
each is an event in Dagster's storage; the next reconciliation goes on."""


def version_tags(code_version: str, run_id: str) -> dict[str, str]:
    """Give the tags of a materialization by which `stale_partitions` finds it."""
    return {CODE_VERSION_TAG: code_version, DATA_VERSION_TAG: f"{code_version}.{run_id[:8]}"}


def stale_partitions(
    instance: dg.DagsterInstance, rendition: Rendition, among: Collection[str] | None = None
) -> dict[str, str]:
    """Give the partitions that were last made by another spec, in order, with its code version.

    Args:
        instance: Dagster's.
        rendition: with its current spec.
        among: the partitions that matter, if not all do; there may be others in the answer.
    """
    found = latest_tag_by_partition(instance, dg.AssetKey(rendition.name), DATA_VERSION_TAG, among)
    versions = {partition: tag.partition(".")[0] for partition, tag in sorted(found.items())}
    return {one: version for one, version in versions.items() if version != rendition.digest}


def unmade_partitions(
    instance: dg.DagsterInstance, renditions: Iterable[str]
) -> dict[str, list[str]]:
    """Give for each rendition the partitions, in order, that only others were materialized in."""
    made = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in renditions}
    everywhere = set[str]().union(*made.values())
    return {name: sorted(everywhere - partitions) for name, partitions in made.items()}


def code_version_of_part(
    instance: dg.DagsterInstance, rendition: Rendition, partitions: Collection[str]
) -> str:
    """Give the code version of partitions of which only a part is made by the current spec."""
    stale = stale_partitions(instance, rendition, partitions)
    return next((stale[one] for one in partitions if one in stale), rendition.digest)


def refreshed(
    context: dg.OpExecutionContext, rendition: Rendition, among: Iterable[str], source: str
) -> Iterator[dg.AssetMaterialization]:
    """Record for stale and unmade partitions that all in them is made by the current spec by now.

    Args:
        context: of a reconciliation, which materializes its own partitions itself.
        rendition: with its current spec.
        among: names of all renditions.
        source: key of the asset that renditions are made from.
    """
    # As Dagster has it for an output; without these it would see a new dependency.
    tags = {
        get_input_data_version_tag(dg.AssetKey(source)): DEFAULT_DATA_VERSION.value,
        get_input_event_pointer_tag(dg.AssetKey(source)): NULL_EVENT_POINTER,
        **version_tags(rendition.digest, context.run_id),
    }
    stale = stale_partitions(context.instance, rendition)
    unmade = unmade_partitions(context.instance, among)[rendition.name]
    others = (one for one in (*stale, *unmade) if one not in context.partition_keys)
    for partition in itertools.islice(others, REFRESHED_MAX):
        yield dg.AssetMaterialization(
            rendition.name,
            description="Reconciled: everything in it is made by the current spec.",
            partition=partition,
            metadata={
                "images": 0,
                "rendition bytes": 0,
                "uri": f"s3://{rendition.bucket}/{rendition.prefix}",
            },
            tags=tags,
        )
