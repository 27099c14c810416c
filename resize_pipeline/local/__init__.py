"""Kafka, MinIO and Dagster on this machine, as child processes and without Docker.

For `up`, `stack` and `demo`, for tests and for benchmarks. Production code never imports this.
"""
