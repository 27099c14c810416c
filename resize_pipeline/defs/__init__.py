"""What Dagster sees: thin definitions that call the pure modules and the resources."""
