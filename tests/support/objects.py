"""What is in a bucket."""

from minio import Minio
from minio.error import S3Error


def exists(minio: Minio, bucket: str, key: str) -> bool:
    """Whether there is an object with this key."""
    try:
        minio.stat_object(bucket, key)
    except S3Error as error:
        if error.code == "NoSuchKey":
            return False
        raise
    return True
