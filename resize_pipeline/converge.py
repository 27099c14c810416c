"""Makes the renditions of one object what its source asks for, whatever happens meanwhile.

Runs overlap: an object can be overwritten or removed while its renditions are made, and another run
can be at it already. So every write and every removal of a rendition is followed by a look at the
source, and if the source has moved on, all is done again. The last one to touch a rendition has
looked afterwards, so any interleaving of runs ends right.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from resize_pipeline.batches import Budget, Downloaded, Request, Resized, Settled, Status
from resize_pipeline.errors import PermanentError, TransientError
from resize_pipeline.imaging import Rendered
from resize_pipeline.objects import ObjectInfo, Original, identity, is_current
from resize_pipeline.renditions import Rendition

ROUNDS_MAX = 10
"""A source that moves on this often while it is rendered is left to a later run."""
WAIT_MAX_S = 5.0
"""Longest pause between two tries."""

T = TypeVar("T")


class Store(Protocol):
    """What is asked of `MinioResource`."""

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """Look at an object."""
        ...

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Original | None:
        """Read an object."""
        ...

    def upload(
        self, bucket: str, key: str, data: bytes, *, content_type: str, metadata: dict[str, str]
    ) -> None:
        """Write an object."""
        ...

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object."""
        ...


class Render(Protocol):
    """What is asked of `Renderer`."""

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make renditions."""
        ...


@dataclass(frozen=True)
class Converger:
    """Makes renditions current; may be used by many threads at once.

    Attributes:
        store: source and renditions.
        renderer: makes renditions.
        renditions: those that are wanted.
        source_bucket: the only bucket that is read from.
        source_max_bytes: a larger source is rejected.
        delete_renditions: whether renditions of a source that is gone are removed.
        retry_s: seconds for which a server that is away is tried again.
    """

    store: Store
    renderer: Render
    renditions: Sequence[Rendition]
    source_bucket: str
    source_max_bytes: int
    delete_renditions: bool
    retry_s: float

    def download(self, request: Request, budget: Budget | None = None) -> Downloaded | Settled:
        """Read the original, unless it is gone or all its renditions are current.

        Args:
            request: the object.
            budget: of the batch, because what an event says of a size need not be so.

        Raises:
            TransientError: the server stays away.
            UserError: it refuses access.
        """
        etag: str | None = None
        try:
            source = self._retry(lambda: self.store.stat(self.source_bucket, request.key))
            if source is None:
                return self._gone(request)
            etag = source.etag
            needed = [spec for spec in self.renditions if not self._is_current(spec, source)]
            if not needed:
                return Settled(request, Status.CURRENT, source.etag)
            if budget and not budget.take(min(source.size, self.source_max_bytes)):
                return Settled(request, Status.DEFERRED)
            original = self._retry(
                lambda: self.store.download(
                    self.source_bucket, request.key, max_bytes=self.source_max_bytes
                )
            )
        except PermanentError as error:
            return self._rejected(request, etag, error)
        if original is None:
            return self._gone(request)
        return Downloaded(request, original, frozenset(spec.name for spec in needed))

    def resize(self, downloaded: Downloaded) -> Resized | Settled:
        """Make the renditions that are needed."""
        original = downloaded.original
        needed = [spec for spec in self.renditions if spec.name in downloaded.needed]
        try:
            rendered = self.renderer.render(original.data, needed)
        except PermanentError as error:
            return self._rejected(downloaded.request, original.etag, error)
        return Resized(
            downloaded.request,
            Original(original.key, original.etag, original.version_id, b""),
            len(original.data),
            tuple(rendered),
        )

    def upload(self, resized: Resized) -> Settled:
        """Write the renditions.

        Raises:
            TransientError: the server stays away.
            UserError: it refuses access.
        """
        specs = {spec.name: spec for spec in self.renditions}
        original = resized.original
        try:
            for rendered in resized.renditions:
                spec = specs[rendered.rendition]
                self._retry(
                    lambda spec=spec, rendered=rendered: self.store.upload(
                        spec.bucket,
                        spec.key_for(original.key),
                        rendered.data,
                        content_type=rendered.content_type,
                        metadata=identity(original, spec),
                    )
                )
        except PermanentError as error:
            return self._rejected(resized.request, original.etag, error)
        return Settled(resized.request, Status.RENDERED, original.etag)

    def confirm(self, settled: Settled) -> tuple[Settled, Resized | None]:
        """Look at the source once more, and do all again for as long as it has moved on.

        Returns:
            How the object ended, and what was written last if anything was written here.

        Raises:
            TransientError: the server stays away, or the source never stays as it is.
            UserError: the server refuses access.
        """
        written: Resized | None = None
        for _ in range(ROUNDS_MAX):
            if self._is_confirmed(settled):
                return settled, written
            step = self.download(settled.request)
            if isinstance(step, Downloaded):
                step = self.resize(step)
            if isinstance(step, Resized):
                written = step
                step = self.upload(step)
            settled = step
        msg = f"object {settled.request.key!r} was overwritten {ROUNDS_MAX} times while rendered"
        raise TransientError(msg)

    def _is_confirmed(self, settled: Settled) -> bool:
        if settled.status is Status.DEFERRED:
            return False
        # What was current was not touched, and what has no etag can't be looked at.
        if settled.status is Status.CURRENT:
            return True
        if settled.status is Status.REJECTED and settled.etag is None:
            return True
        source = self._retry(lambda: self.store.stat(self.source_bucket, settled.request.key))
        return (source.etag if source else None) == settled.etag

    def _is_current(self, spec: Rendition, source: ObjectInfo) -> bool:
        found = self._retry(lambda: self.store.stat(spec.bucket, spec.key_for(source.key)))
        return is_current(found, source.etag, spec)

    def _gone(self, request: Request) -> Settled:
        if self.delete_renditions:
            for spec in self.renditions:
                # A key that no object can have needs no removal.
                with suppress(PermanentError):
                    self._retry(
                        lambda spec=spec: self.store.remove(spec.bucket, spec.key_for(request.key))
                    )
        return Settled(request, Status.MISSING)

    def _rejected(self, request: Request, etag: str | None, error: PermanentError) -> Settled:
        return Settled(request, Status.REJECTED, etag, str(error), type(error).__name__)

    def _retry(self, work: Callable[[], T]) -> T:
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_delay(self.retry_s),
            wait=wait_exponential_jitter(multiplier=0.1, max=WAIT_MAX_S),
            reraise=True,
        )
        return retrying(work)
