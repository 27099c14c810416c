"""The names of definitions and run tags that several files of defs/ share."""

SENSOR_NAME = "minio_events_sensor"
JOB_NAME = "resize_images_job"
CHECKS_JOB_NAME = "check_renditions_job"
RAW_IMAGES = "raw_images"
"""The observed asset of the source bucket."""

LAG_TAG = "resize_pipeline/lag"
"""Offsets left on the topic when the sensor requested the run; the run's observation shows them."""
OFFSETS_TAG = "resize_pipeline/offsets"
"""The run's offset ranges, separated by commas."""
TOPIC_TAG = "resize_pipeline/topic"
"""The topic of the offset ranges."""
