"""What Dagster injects into ops: clients, settings, the renderer and the scratch IO manager.

A resource holds its configuration and opens its client. Decisions belong to `delivery/`.
"""
