"""Provisioning: topics, MinIO's Kafka target, buckets, notification rules and the pipeline's user.

Each part reads what is there, decides in pure functions what differs from what should be, and
changes only that, so it can be run at any time and any number of times.
"""

from pathlib import Path

from resize_pipeline.provisioning.admin import Server
from resize_pipeline.provisioning.buckets import ensure_buckets, ensure_notification
from resize_pipeline.provisioning.steps import Report, Step
from resize_pipeline.provisioning.target import ensure_target
from resize_pipeline.provisioning.topics import ensure_topics
from resize_pipeline.provisioning.user import ensure_user
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.settings import Settings

__all__ = ["Report", "Step", "provision"]


def provision(
    settings: Settings,
    *,
    dry_run: bool = False,
    credentials_file: Path | None = None,
    report: Report | None = None,
) -> list[Step]:
    """Make Kafka and MinIO ready for the pipeline.

    Args:
        settings: the servers, and what should be there.
        dry_run: only say what would be changed.
        credentials_file: where the new user's credentials go; by default a file in LOCAL_DIR
            that `load_settings` reads when MinIO is a local one, otherwise a step's lines.
        report: called with each step as it is done.

    Returns:
        The steps, in order. Settings that were loaded before do not hold a new user's
        credentials: load them again.

    Raises:
        TransientError: a server can't be reached.
        UserError: a setting or the rendition file is wrong.
    """
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    steps: list[Step] = []

    def add(step: Step) -> None:
        steps.append(step)
        if report is not None:
            report(step)

    ensure_topics(settings, add, dry_run=dry_run)
    server = Server(settings)
    # Kafka comes first: MinIO refuses a target whose Kafka it can't reach.
    ensure_target(settings, server, add, dry_run=dry_run)
    client = server.s3().client
    ensure_buckets(settings, renditions, server, client, add, dry_run=dry_run)
    ensure_notification(settings, server, client, add, dry_run=dry_run)
    ensure_user(settings, renditions, server, credentials_file, add, dry_run=dry_run)
    return steps
