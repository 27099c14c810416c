"""The local stack: real Kafka and real MinIO as child processes, without Docker."""
