"""Resized renditions of every image in a MinIO bucket, driven by Kafka events, run by Dagster."""
