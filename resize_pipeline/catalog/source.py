"""Looks again at the pictures whose rows a run writes."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from resize_pipeline.catalog.recording import Undescribed
from resize_pipeline.delivery.batches import Settled
from resize_pipeline.delivery.converge import Converger
from resize_pipeline.errors import PermanentError
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.resources.renderer import RendererResource


@dataclass(frozen=True)
class RunSource:
    """The source bucket, as a run sees it."""

    converger: Converger
    renderer: RendererResource

    def is_unchanged(self, settled: Settled) -> bool:
        """Return whether the source still is as it was when the object was settled.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        return self.converger.is_unchanged(settled)

    def describe(self, objects: Sequence[Undescribed]) -> Mapping[str, Facts | None]:
        """Read pictures again; return what each is like, without those that have changed.

        Raises:
            TransientError: the server is unreachable.
            UserError: the server refuses access.
        """
        analyses = [analysis for one in objects for analysis in one.analyses]
        with ThreadPoolExecutor(self.renderer.threads(analyses)) as pool:
            found = list(pool.map(self._describe, objects))
        return {
            one.settled.request.key: facts
            for one, (is_unchanged, facts) in zip(objects, found, strict=True)
            if is_unchanged
        }

    def _describe(self, wanted: Undescribed) -> tuple[bool, Facts | None]:
        try:
            original = self.converger.read(wanted.settled.request)
            if original is None or original.etag != wanted.settled.etag:
                return False, None
            return True, self.renderer.describe(original.data, wanted.analyses)
        except PermanentError:
            # Its renditions are current, so it was a picture to an earlier version.
            return True, None
