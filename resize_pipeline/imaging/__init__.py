"""Decodes, scales and encodes pictures, from bytes to bytes.

`renderer` is the parent's side and runs `child` in processes of its own, which alone load the
decoders. Files, servers, settings and Dagster belong elsewhere.
"""
