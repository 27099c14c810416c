"""Starts runs from a process that has already imported Dagster and the definitions.

`python -m resize_pipeline.instance.warm` is a tree of processes, each forked while it had one
thread. The parent (`parent.py`) has imported Dagster. It forks the loader (`loader.py`), which
loads the definitions, and forks a process for each run (`run.py`) and, for `resize-pipeline up`,
the code server (`code_server.py`). The run launcher talks to the loader over a Unix socket
(`client.py`, `wire.py`).
"""
