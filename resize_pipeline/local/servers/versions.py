"""The pinned versions of the servers in the local stack."""

KAFKA_VERSION = "4.3.1"
KAFKA_SCALA_VERSION = "2.13"
LOG4J_VERSION = "2.25.4"
"""The log4j version of this Kafka; the slf4j binding must match it."""

KAFKA_COORDINATES = (
    f"org.apache.kafka:kafka_{KAFKA_SCALA_VERSION}:{KAFKA_VERSION}",
    # Only Kafka's tarball includes the binding, not its artifacts; without it, nothing is logged.
    # The "!" keeps its parent POM from managing versions: it would select an older kafka-clients.
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!",
)

# The last commit of community MinIO, as a Go pseudo-version.
MINIO_MODULE = "github.com/minio/minio"
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
MINIO_COMMIT = "7aac2a2c5b7c"
MINIO_COMMIT_TIME = "2026-02-12T20:18:48Z"
MINIO_RELEASE_TAG = "DEVELOPMENT.2026-02-12T20-18-48Z"
MINIO_SUM = "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA="
"""Go's checksum of this module. Go's checksum database vouches for the modules that it needs."""
MINIO_PACKAGES = 1300
"""Go packages that a build compiles, approximately, for the progress; systems differ slightly."""
