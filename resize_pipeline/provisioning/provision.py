"""Runs all parts of provisioning in order."""

from pathlib import Path

from resize_pipeline.provisioning.admin import Server
from resize_pipeline.provisioning.buckets import ensure_buckets, ensure_notification
from resize_pipeline.provisioning.made import Made
from resize_pipeline.provisioning.steps import Report, Step
from resize_pipeline.provisioning.target import ensure_target
from resize_pipeline.provisioning.topics import ensure_topics
from resize_pipeline.provisioning.user import ensure_user, user_spec
from resize_pipeline.renditions.file import check_catalog_bucket, load_analyses, load_renditions
from resize_pipeline.settings import Settings


def provision(
    settings: Settings,
    *,
    dry_run: bool = False,
    take_over: bool = False,
    credentials_file: Path | None = None,
    report: Report | None = None,
) -> list[Step]:
    """Make Kafka and MinIO ready for the pipeline.

    Args:
        settings: the servers and their desired state.
        dry_run: report what would change, and change nothing.
        take_over: change what another pipeline made on the server, too.
        credentials_file: receives the new user's credentials. By default they go to a file in
            LOCAL_DIR that `load_settings` reads if MinIO is local, and otherwise to the lines of
            a step.
        report: called with each step when it is done.

    Returns:
        The steps, in order. If they created a user or a secret, load the settings again to get
        the new credentials.

    Raises:
        TransientError: a server is unreachable.
        UserError: a setting or the rendition file is wrong, or another pipeline made what would
            have to change.
    """
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    check_catalog_bucket(settings.catalog_bucket, settings.source_bucket, renditions)
    load_analyses(settings.renditions_file, settings.catalog_bucket)
    steps: list[Step] = []

    def add(step: Step) -> None:
        steps.append(step)
        if report is not None:
            report(step)

    ensure_topics(settings, add, dry_run=dry_run)
    server = Server(settings)
    made = Made(settings, take_over=take_over)
    # Kafka comes first: MinIO refuses a target whose Kafka it can't reach.
    ensure_target(settings, server, made, add, dry_run=dry_run)
    minio = server.s3()
    ensure_buckets(settings, renditions, server, minio, add, dry_run=dry_run)
    ensure_notification(settings, server, minio, made, add, dry_run=dry_run)
    user = user_spec(settings, renditions, credentials_file)
    ensure_user(user, server, made, add, dry_run=dry_run)
    return steps
