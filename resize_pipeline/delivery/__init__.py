"""Decides what happens to each object: events, requests, batches, converging, reconciliation.

Implements docs/delivery.md. Knows no Dagster definitions, no image decoding, and no clients other
than the resources it is given.
"""
