"""The MinIO and Kafka clients as Dagster resources: the only files that import those clients."""
