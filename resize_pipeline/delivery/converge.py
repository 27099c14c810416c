"""Brings the renditions of an object up to date with its source, whatever happens meanwhile.

Runs overlap: an object can be overwritten or removed while its renditions are made, and another run
can be working on it. So a run checks the source after every write and every removal of a rendition,
and starts over if the source has changed. Whichever run touches a rendition last checks the source
afterwards, so any interleaving of runs ends in the right state. The same holds for an object's dead
letter: a run that writes it or takes it back checks the source afterwards.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar

from resize_pipeline.delivery.batches import (
    Downloaded,
    Known,
    Request,
    Resized,
    Settled,
    Status,
    Written,
)
from resize_pipeline.delivery.looks import Looks
from resize_pipeline.delivery.patience import retried
from resize_pipeline.delivery.room import Memory
from resize_pipeline.errors import (
    MissingBucketError,
    PermanentError,
    SlowPictureError,
)
from resize_pipeline.renditions.objects import ObjectInfo, Original, Rendered, identity, is_current
from resize_pipeline.renditions.spec import Rendition, metadata_read

ROUNDS_MAX = 10
"""A source that changes this often while it is rendered is busy, and is left to a later run."""

T = TypeVar("T")

SendLetters = Callable[[Sequence[Settled], Sequence[Request]], None]
"""Writes the dead letters of rejected objects, and takes back those of other objects."""


class Confirmed(NamedTuple):
    """An object's outcome at the last check of its source, and what was written last, if anything.

    The source may have changed since, so a dead letter is followed by another check.
    """

    settled: Settled
    written: Written | None


class Store(Protocol):
    """The part of `MinioResource` that is used here."""

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """Stat an object."""
        ...

    def is_listed(self, bucket: str, key: str) -> bool:
        """Return whether a listing shows an object."""
        ...

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Original | None:
        """Read an object."""
        ...

    def upload(
        self,
        bucket: str,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str | None = None,
        metadata: dict[str, str],
    ) -> None:
        """Write an object."""
        ...

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object."""
        ...


class Render(Protocol):
    """The part of `Renderer` that is used here."""

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make renditions."""
        ...


@dataclass(frozen=True)
class Converger:
    """Makes renditions current; thread-safe.

    Attributes:
        store: holds source and renditions.
        renderer: makes renditions.
        renditions: the specs of the selected renditions.
        source_bucket: the only bucket that originals are read from.
        source_max_bytes: a larger source is rejected.
        delete_renditions: whether to remove the renditions of a source that is gone.
        retry_s: seconds for which calls to an unreachable server are retried.
        alone: the context in which an object that starts over is downloaded and rendered.
        looks: whether announced objects are looked for; a batch has its own.
    """

    store: Store
    renderer: Render
    renditions: Sequence[Rendition]
    source_bucket: str
    source_max_bytes: int
    delete_renditions: bool
    retry_s: float
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    looks: Looks = field(default_factory=Looks)

    def download(self, request: Request, memory: Memory | None = None) -> Downloaded | Settled:
        """Read the original, unless it is gone or all its renditions are current.

        Args:
            request: the object.
            memory: what it may take, needed because the size in an event may be wrong.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        source: ObjectInfo | None = None
        try:
            wanted = self._wanted(request.key)
            seen: dict[str, ObjectInfo | None] = {}
            if wanted and request.message and 0 < request.size <= self.source_max_bytes:
                seen = self._seen(wanted[0], request.key)
                if not any(seen.values()) and (new := self._new(request, memory)):
                    return new
            source = self._retry(lambda: self.store.stat(self.source_bucket, request.key))
            if source is None:
                return self._gone(request)
            sizes = {} if request.force else self._current(source, seen)
            needed = frozenset(spec.name for spec in wanted) - sizes.keys()
            if not needed:
                return Settled(
                    request,
                    Status.CURRENT,
                    source.etag,
                    metadata_read=self._metadata_read(source),
                    known=Known(source, sizes),
                )
            size = min(source.size, self.source_max_bytes)
            if memory and not memory.take(size):
                return Settled(request, Status.DEFERRED)
            try:
                original = self._read(request, size if memory else self.source_max_bytes)
            except PermanentError:
                if memory is None or size == self.source_max_bytes:
                    raise
                # It has grown, or its decoded content is larger than what it reserved.
                return Settled(request, Status.DEFERRED)
        except PermanentError as error:
            return self._rejected(request, source, error)
        if original is None:
            return self._gone(request)
        return Downloaded(request, original, needed, sizes)

    def _seen(self, first: Rendition, key: str) -> dict[str, ObjectInfo | None]:
        """Look at an object's first rendition, while the batch needs that."""
        if not self.looks.are_needed:
            return {}
        found = self._look(first, key)
        self.looks.saw(found)
        return {first.name: found}

    def _current(
        self, source: ObjectInfo, seen: Mapping[str, ObjectInfo | None]
    ) -> Mapping[str, int]:
        """Return the bytes of the renditions that are current, by name."""
        return {
            spec.name: found.size
            for spec in self._wanted(source.key)
            if (found := seen.get(spec.name) or self._look(spec, source.key))
            and is_current(found, source, spec)
        }

    def _new(self, request: Request, memory: Memory | None) -> Downloaded | Settled | None:
        """Read an announced original that lacks its first rendition, as most of them do.

        Renditions are written in order, so without the first there are no others, unless it was
        removed or its spec is newer than theirs. Then the others are made again, which does no
        harm.

        Returns:
            The same as `download`; None if the object differs from its announcement.
        """
        if memory and not memory.take(request.size):
            return Settled(request, Status.DEFERRED)
        try:
            original = self._read(request, request.size)
        except PermanentError:
            if memory:
                memory.give_back(request.size)
            return None
        if original is None:
            return self._gone(request)
        needed = frozenset(spec.name for spec in self._wanted(request.key))
        return Downloaded(request, original, needed)

    def read(self, request: Request) -> Original | None:
        """Read an original of any size that is allowed; return None if it is gone.

        Raises:
            PermanentError: it is too large, or can't be read as it is.
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        return self._read(request, self.source_max_bytes)

    def _read(self, request: Request, max_bytes: int) -> Original | None:
        return self._retry(
            lambda: self.store.download(self.source_bucket, request.key, max_bytes=max_bytes)
        )

    def resize(self, downloaded: Downloaded) -> Resized | Settled:
        """Make the renditions that are needed, unless that takes more time than is left."""
        original = downloaded.original
        started = time.monotonic()
        needed = [spec for spec in self.renditions if spec.name in downloaded.needed]
        try:
            resolved = [spec.resolved(original.metadata) for spec in needed]
            rendered = self.renderer.render(original.data, resolved)
        except SlowPictureError as error:
            return Settled(downloaded.request, Status.POSTPONED, original.etag, str(error))
        except PermanentError as error:
            rejected = self._rejected(downloaded.request, original, error)
            return replace(rejected, render_s=time.monotonic() - started)
        return Resized(
            downloaded.request,
            replace(original, data=b""),
            len(original.data),
            tuple(rendered),
            downloaded.sizes,
            time.monotonic() - started,
        )

    def upload(self, resized: Resized) -> Settled:
        """Write the renditions; one whose bucket is missing does not keep others from it.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        specs = {spec.name: spec for spec in self.renditions}
        original = resized.original
        unwritten = ""
        try:
            for rendered in resized.renditions:
                try:
                    self._write(original, specs[rendered.rendition], rendered)
                except MissingBucketError as error:
                    unwritten = str(error)
        except PermanentError as error:
            return self._rejected(resized.request, original, error)
        return Settled(
            resized.request,
            Status.RENDERED,
            original.etag,
            metadata_read=self._metadata_read(original),
            unwritten=unwritten,
            known=resized.known,
            render_s=resized.render_s,
            written_at=time.time(),
        )

    def _write(self, original: Original, spec: Rendition, rendered: Rendered) -> None:
        self._retry(
            lambda: self.store.upload(
                spec.bucket,
                spec.key_for(original.key),
                rendered.data,
                content_type=rendered.content_type,
                cache_control=spec.cache_control,
                metadata=identity(original, spec),
            )
        )

    def confirm(self, settled: Settled) -> Confirmed:
        """Check the source once more, and start over for as long as it has changed.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        written: Written | None = None
        rounds = 0
        while not self.is_confirmed(settled):
            # Only here, because whatever touches a rendition last must be followed by a check.
            if rounds == ROUNDS_MAX:
                return Confirmed(Settled(settled.request, Status.BUSY), written)
            rounds += 1
            with self.alone():
                step = self.download(settled.request)
                if isinstance(step, Downloaded):
                    step = self.resize(step)
            if isinstance(step, Resized):
                written = Written.of(step)
                step = self.upload(step)
            settled = step
        return Confirmed(settled, written)

    def answer(self, outcomes: Sequence[Confirmed], send: SendLetters) -> list[Confirmed]:
        """Send the dead letters of objects, and check their sources after each sending.

        Args:
            outcomes: as returned by `confirm`.
            send: returns once the letters can no longer be lost.

        Returns:
            The outcomes of the objects; those whose source had changed were done again.

        Raises:
            TransientError: a server stays unreachable.
            UserError: a server refuses access.
        """
        answered: list[Confirmed] = []
        left = list(outcomes)
        rounds = 0
        while left:
            answered += [one for one in left if not _changes_letter(one.settled)]
            changing = [one for one in left if _changes_letter(one.settled)]
            rejected = [settled for settled, _ in changing if settled.status is Status.REJECTED]
            others = [settled for settled, _ in changing if settled.status is not Status.REJECTED]
            send(rejected, [settled.request for settled in others])
            rounds += 1
            left = []
            for settled, written in changing:
                has_letter = settled.status is Status.REJECTED
                request = replace(settled.request, has_dead_letter=has_letter)
                if self.is_unchanged(settled):
                    answered.append(Confirmed(replace(settled, request=request), written))
                elif rounds == ROUNDS_MAX:
                    answered.append(Confirmed(Settled(request, Status.BUSY), written))
                else:
                    ended, again = self.confirm(Settled(request, Status.DEFERRED))
                    left.append(Confirmed(ended, again or written))
        return answered

    def is_confirmed(self, settled: Settled) -> bool:
        """Return whether an object needs nothing more, by another look at its source if need be.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        if settled.status is Status.DEFERRED:
            return False
        # Nothing was done since the source was looked at, or the slow lane looks at it again.
        if settled.status in {Status.CURRENT, Status.POSTPONED}:
            return True
        if settled.status is Status.MISSING and not self.delete_renditions:
            return True
        return self.is_unchanged(settled)

    def is_unchanged(self, settled: Settled) -> bool:
        """Return whether the source still is as it was when the object was settled.

        Raises:
            TransientError: the server stays unreachable.
            UserError: the server refuses access.
        """
        # An object without an ETag can't be checked.
        if settled.status is Status.REJECTED and settled.etag is None:
            return True
        try:
            source = self._retry(lambda: self.store.stat(self.source_bucket, settled.request.key))
        except PermanentError:
            # It was replaced by an object that can't be read.
            return False
        etag = source.etag if source else None
        return (etag, self._metadata_read(source)) == (settled.etag, settled.metadata_read)

    def _wanted(self, key: str) -> list[Rendition]:
        return [spec for spec in self.renditions if spec.wants(key)]

    def _look(self, spec: Rendition, key: str) -> ObjectInfo | None:
        return self._retry(lambda: self.store.stat(spec.bucket, spec.key_for(key)))

    def _metadata_read(self, source: ObjectInfo | Original | None) -> str:
        return metadata_read(self.renditions, (source and source.metadata) or {})

    def _gone(self, request: Request) -> Settled:
        if self.delete_renditions:
            if self._retry(lambda: self.store.is_listed(self.source_bucket, request.key)):
                return self._contradicted(request)
            for spec in self.renditions:
                # A key that no object can have needs no removal.
                with suppress(PermanentError):
                    self._retry(
                        lambda spec=spec: self.store.remove(spec.bucket, spec.key_for(request.key))
                    )
        return Settled(request, Status.MISSING)

    def _contradicted(self, request: Request) -> Settled:
        """Settle an object that a listing shows although its stat found nothing."""
        # Two different answers must agree before anything is deleted, so a single wrong one, such
        # as a proxy's, deletes nothing.
        if self._retry(lambda: self.store.stat(self.source_bucket, request.key)):
            return Settled(request, Status.DEFERRED)
        msg = f"bucket {self.source_bucket!r} lists it, but answers that it does not exist"
        return self._rejected(request, None, PermanentError(msg))

    def _rejected(
        self, request: Request, source: ObjectInfo | Original | None, error: PermanentError
    ) -> Settled:
        etag = source.etag if source else None
        read = self._metadata_read(source)
        seen = source.info if isinstance(source, Original) else source
        return Settled(
            request,
            Status.REJECTED,
            etag,
            str(error),
            type(error).__name__,
            read,
            known=Known(seen, {}) if seen else None,
        )

    def _retry(self, work: Callable[[], T]) -> T:
        return retried(work, self.retry_s)


def _changes_letter(settled: Settled) -> bool:
    if settled.status in {Status.BUSY, Status.POSTPONED}:
        return False
    return settled.status is Status.REJECTED or settled.request.has_dead_letter
