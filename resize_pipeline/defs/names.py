"""TODO."""

LAG_TAG = "resize_pipeline/lag"
"""What was left on the topic when the sensor requested the run; its observation shows it."""


SENSOR_NAME = "minio_events_sensor"


JOB_NAME = "resize_images_job"


CHECKS_JOB_NAME = "check_renditions_job"


RAW_IMAGES = "raw_images"
"""The asset of the source bucket, which is observed."""
