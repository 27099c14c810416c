"""Dagster's webserver behind a guard: `python -m resize_pipeline.webserver`.

Who may send requests, and of which kind, belongs here. What a run may be configured with does not:
see `defs/ops/config.py` and `resources/closed.py`.
"""
