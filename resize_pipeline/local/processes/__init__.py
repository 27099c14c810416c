"""Child processes that end with their parent: supervisor, guard, state file and ports.

Knows nothing of the servers that it runs.
"""
