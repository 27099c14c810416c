"""The files that `up` creates in a folder without them.

Each is a link to the file at the top of the repository, and a wheel contains that file instead.
"""

from pathlib import Path

DEFAULTS = Path(__file__).parent
