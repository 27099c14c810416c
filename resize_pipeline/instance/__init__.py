"""The Dagster instance: opening it, the classes that dagster.yaml names, and queries to its tables.

Private names of Dagster are imported in `internals.py` only. Definitions belong to `defs/`.
"""
