"""What the status and the metrics say of the pipeline: both read the same facts."""
