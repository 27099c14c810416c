"""The names of definitions and run tags that several files of defs/ share."""

from dataclasses import dataclass

import dagster as dg

from resize_pipeline.settings.base import DEFAULT_PIPELINE_NAME

JOB_NAME = "resize_images_job"
"""The end of the name of each pipeline's job that makes renditions."""
RETENTION_JOB_NAME = "delete_finished_runs_job"
"""The end of the name of the job that deletes finished runs."""


@dataclass(frozen=True)
class Names:
    """The names of a pipeline's definitions, for several pipelines can share a Dagster instance.

    Dagster identifies an asset by its key in all code locations, and its tables are searched for
    runs and sensors by their names.

    Attributes:
        pipeline: the pipeline's name, PIPELINE_NAME. The default one adds nothing to the names.
    """

    pipeline: str

    @property
    def sensor(self) -> str:
        """The name of the sensor that reads the topic."""
        return self.of("minio_events_sensor")

    @property
    def job(self) -> str:
        """The name of the job that makes renditions."""
        return self.of(JOB_NAME)

    @property
    def checks_job(self) -> str:
        """The name of the job that checks them."""
        return self.of("check_renditions_job")

    @property
    def retention_job(self) -> str:
        """The name of the job that deletes finished runs."""
        return self.of(RETENTION_JOB_NAME)

    @property
    def maintenance_job(self) -> str:
        """The name of the job that maintains the catalogue's table."""
        return self.of("maintain_catalog_job")

    @property
    def near_duplicates_job(self) -> str:
        """The name of the job that looks for near-duplicates."""
        return self.of("near_duplicates_job")

    @property
    def jobs(self) -> tuple[str, ...]:
        """The names of all jobs."""
        return (
            self.job,
            self.checks_job,
            self.retention_job,
            self.maintenance_job,
            self.near_duplicates_job,
        )

    @property
    def raw_images(self) -> dg.AssetKey:
        """The key of the asset of the source bucket, which is only observed."""
        return self.asset("raw_images")

    @property
    def catalog(self) -> dg.AssetKey:
        """The key of the asset of the catalogue."""
        return self.asset("catalog")

    @property
    def near_duplicates(self) -> dg.AssetKey:
        """The key of the asset of near-duplicates."""
        return self.asset("near_duplicates")

    @property
    def graph(self) -> str:
        """The name of the graph of a run's steps, under which a run is configured."""
        return self.of("renditions")

    @property
    def io_manager(self) -> str:
        """The key of what passes values from one step of a run to the next."""
        return self.of("io_manager")

    def of(self, name: str) -> str:
        """Return the name of a sensor, a job, an op or a resource: "photos_resize_images_job"."""
        return "_".join([*self._prefix, name])

    def asset(self, name: str) -> dg.AssetKey:
        """Return the key of an asset: "photos/thumbnail"."""
        return dg.AssetKey([*self._prefix, name])

    def owns(self, asset: dg.AssetKey) -> bool:
        """Return whether an asset is one of this pipeline."""
        return self.asset(asset.path[-1]) == asset

    def owns_run(self, run: dg.DagsterRun) -> bool:
        """Return whether a run is one of this pipeline, from a job of its own or Materialize."""
        return run.job_name in self.jobs or any(map(self.owns, run.asset_selection or ()))

    @property
    def _prefix(self) -> list[str]:
        # Dagster allows no hyphens in the names of jobs.
        is_default = self.pipeline == DEFAULT_PIPELINE_NAME
        return [] if is_default else [self.pipeline.replace("-", "_")]


LAG_TAG = "resize_pipeline/lag"
"""Offsets left on the topic when the sensor requested the run; the run's observation shows them."""
OFFSETS_TAG = "resize_pipeline/offsets"
"""The run's offset ranges, separated by commas."""
TOPIC_TAG = "resize_pipeline/topic"
"""The topic of the offset ranges."""
LEFT_TAG = "resize_pipeline/left"
"""Set on a run that leaves objects to a follow-up run: the pipeline's name."""
LEFT_AFTER_TAG = "resize_pipeline/left_after"
"""The last key that this run took; the follow-up run starts after it."""
POSTPONED_TAG = "resize_pipeline/postponed"
"""Set on a run that leaves slow pictures to a run of the slow lane: how many."""
HAS_POSTPONED_TAG = "resize_pipeline/has_postponed"
"""Set on such a run, too: the pipeline's name, because Dagster finds runs by a tag's value."""
LANE_TAG = "resize_pipeline/lane"
"""Set to `SLOW` on the runs of the slow lane."""
SLOW = "slow"
