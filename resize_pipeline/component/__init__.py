"""The Dagster component `resize_pipeline.ImageRenditions`, for code locations of somebody else."""
