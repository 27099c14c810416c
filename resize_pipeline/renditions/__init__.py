"""Defines renditions: their specs, the file that lists them, and which object is a current one.

Knows neither pixels nor servers: `imaging` makes renditions, `delivery` moves them.
"""
