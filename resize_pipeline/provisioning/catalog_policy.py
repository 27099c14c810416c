"""What the pipeline's MinIO user may do in the bucket of the catalogue. Pure."""

from typing import Any

from resize_pipeline.settings import Settings


def with_catalog(policy: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a policy that also allows to write the catalogue's tables, if there is one."""
    bucket = settings.catalog_bucket
    if not bucket:
        return policy
    actions = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    allowed = {
        f"{bucket}": ["s3:GetBucketLocation", "s3:ListBucket"],
        f"{bucket}/{settings.pipeline_name}/*": actions,
        f"{bucket}/{settings.pipeline_name}-near-duplicates/*": actions,
    }
    statements = [
        {"Effect": "Allow", "Action": names, "Resource": [f"arn:aws:s3:::{resource}"]}
        for resource, names in allowed.items()
    ]
    return {**policy, "Statement": [*policy["Statement"], *statements]}
