"""The catalogue: a Delta Lake table with a row for each source object.

`rows.py` decides what a row says, `recording.py` how a run brings the table up to date, and
`table.py` reads and writes it.
"""
