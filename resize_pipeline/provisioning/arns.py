"""ARNs of the targets that a bucket notifies. Pure functions."""


def is_arn(target: str) -> bool:
    """Return whether NOTIFY_KAFKA_TARGET is an ARN, and so names what an administrator made."""
    return target.startswith("arn:")


def is_topic(target: str) -> bool:
    """Return whether the target is a topic (Ceph) and not a queue (MinIO and the like)."""
    return arn(target).split(":")[2] == "sns"


def arn(target: str) -> str:
    """Return the ARN of a target.

    Args:
        target: the name of MinIO's Kafka target, or the ARN itself.
    """
    return target if is_arn(target) else f"arn:minio:sqs::{target}:kafka"


def is_arn_of(value: str, target: str) -> bool:
    """Return whether this is the ARN of the target, with or without region."""
    return _without_region(value) == _without_region(arn(target))


def _without_region(value: str) -> list[str]:
    parts = value.split(":")
    return [*parts[:3], *parts[4:]]


def target_of(value: str) -> str | None:
    """Return the Kafka target of an ARN, with or without region; None if it has none."""
    parts = value.split(":")
    if parts[:3] != ["arn", "minio", "sqs"] or parts[5:] != ["kafka"]:
        return None
    return parts[4]
