"""Provisioning: topics, MinIO's Kafka target, buckets, notification rules and the pipeline's user.

Each part reads the servers' state, compares it with the desired state in pure functions, and
changes only what differs. So provisioning can be run at any time, any number of times.
"""
