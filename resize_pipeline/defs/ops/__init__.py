"""The ops of a run: `plan`, then `download`, `resize` and `upload` for each batch, then `publish`.

An op connects resources with `delivery/` and logs the outcome. What happens to an object is decided
in `delivery/`.
"""
