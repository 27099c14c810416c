"""The Kafka side: connections, reading, the backlog, offset ranges and dead letters.

Knows no images, no MinIO and no Dagster. The Dagster resource is `resources/kafka.py`.
"""
