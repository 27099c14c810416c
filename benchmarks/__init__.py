"""What the pipeline costs, measured."""
