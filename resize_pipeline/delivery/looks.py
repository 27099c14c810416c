"""Which announced objects are looked for before they are read."""

from resize_pipeline.renditions.objects import ObjectInfo

LOOKS_MIN = 16
"""Objects of a batch that are looked for in any case: one for each thread that downloads."""


class Looks:
    """Whether the announced objects of a batch are looked for before they are read; thread-safe.

    Of a batch of new objects only the first ones are. A batch that was rendered before, as in a
    replay or a repeated run, shows that in its first objects, because batches are worked off in
    order; what is rendered twice for lack of a look does no harm.
    """

    def __init__(self) -> None:
        """Start with no object seen."""
        self._found = False
        self._lacking = 0

    @property
    def are_needed(self) -> bool:
        """Whether to look for the next object."""
        return self._found or self._lacking < LOOKS_MIN

    def saw(self, rendition: ObjectInfo | None) -> None:
        """Count a look."""
        # No lock: a look more or less changes nothing.
        self._found = self._found or rendition is not None
        self._lacking += 1
