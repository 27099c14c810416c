"""The Dagster definitions: assets, ops, jobs, sensors, schedules, checks and partitions.

They stay thin: decisions belong to `delivery/`, clients to `resources/`, and questions to Dagster's
tables to `instance/`.
"""
