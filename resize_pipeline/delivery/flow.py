"""Takes the batches of a run through download, rendering and upload, so that no processor is idle.

The next batch is downloaded while one is rendered, and what is rendered is uploaded meanwhile: each
object proceeds by itself. The steps of a run wait for their batch, and begin the one that follows.
What is in memory is bounded whatever the number of batches.
"""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from threading import Condition

from resize_pipeline.delivery.batches import (
    Batch,
    Budget,
    Downloaded,
    Request,
    Resized,
    Settled,
    Written,
)
from resize_pipeline.delivery.converge import Confirmed, Converger
from resize_pipeline.delivery.room import Room, Share

IO_THREADS = 16
"""Threads that download, and as many that upload."""


class Stage(IntEnum):
    """What an object goes through."""

    DOWNLOAD = 0
    RENDER = 1
    UPLOAD = 2


class BatchInFlight:
    """A batch whose objects are on their way. Thread-safe.

    Attributes:
        converger: makes its renditions.
    """

    def __init__(self, batch: Batch, converger: Converger) -> None:
        """Begin with all objects ahead of the first stage."""
        self.batch = batch
        self.converger = converger
        self._left = [len(batch.requests)] * len(Stage)
        self._outcomes: list[Confirmed] = []
        self._unsettled: list[Confirmed] = []
        self._failure: tuple[Stage, BaseException] | None = None
        self._changed = Condition()

    def wait(self, stage: Stage) -> None:
        """Wait until all objects have passed a stage.

        Raises:
            TransientError: a server stayed unreachable.
            UserError: a server refused access.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._left[stage])
            if self._failure and self._failure[0] <= stage:
                raise self._failure[1]

    def outcomes(self) -> tuple[list[Confirmed], list[Confirmed]]:
        """Wait for all objects; return those that are confirmed, and those to do once more.

        An object is done once more if it had no room or its source has changed.

        Raises:
            TransientError: as in `wait`.
            UserError: as in `wait`.
        """
        self.wait(Stage.UPLOAD)
        return self._outcomes, self._unsettled

    @property
    def has_failed(self) -> bool:
        """Whether an object has failed, so that no further one is begun."""
        return self._failure is not None

    def passed(self, stage: Stage) -> None:
        """Count an object that has passed a stage."""
        with self._changed:
            self._left[stage] -= 1
            self._changed.notify_all()

    def settle(self, outcome: Confirmed, *, is_confirmed: bool) -> None:
        """Keep what became of an object, which has thereby passed the last stage."""
        with self._changed:
            (self._outcomes if is_confirmed else self._unsettled).append(outcome)
        self.passed(Stage.UPLOAD)

    def lose(self, stage: Stage, error: BaseException | None = None) -> None:
        """Let an object pass this stage and all later ones undone, because one has failed."""
        with self._changed:
            if error and not self._failure:
                self._failure = stage, error
            for later in range(stage, len(Stage)):
                self._left[later] -= 1
            self._changed.notify_all()


@dataclass(frozen=True)
class _Inside:
    """An object in the room."""

    flight: BatchInFlight
    share: Share


class Flow:
    """The threads and the memory of a run."""

    def __init__(self, *, max_objects: int, max_bytes: int, renderers: int) -> None:
        """Start without a batch.

        Args:
            max_objects: most objects in memory at once.
            max_bytes: most bytes of originals at once, and of renditions.
            renderers: how many pictures are rendered at once.
        """
        self._room = Room(max_objects, max_bytes)
        self._renditions = Budget(max_bytes)
        self._downloads = ThreadPoolExecutor(IO_THREADS, "download")
        self._renders = ThreadPoolExecutor(renderers, "render")
        self._uploads = ThreadPoolExecutor(IO_THREADS, "upload")
        # By the id of the batch, which its flight keeps alive.
        self._ahead: dict[int, BatchInFlight] = {}

    def take(self, batch: Batch, converger: Callable[[], Converger]) -> BatchInFlight:
        """Return a batch in flight, and let the one that follows it begin.

        Args:
            batch: the batch.
            converger: makes what makes the renditions of a batch.
        """
        taken = self._ahead.pop(id(batch), None) or self._begin(batch, converger())
        if batch.following:
            self._ahead[id(batch.following)] = self._begin(batch.following, converger())
        return taken

    @contextmanager
    def alone(self) -> Generator[None]:
        """Wait until no original is in memory, and let none in until the block ends."""
        self._room.enter(self._room.size)
        try:
            yield
        finally:
            self._room.drop(self._room.size)
            self._room.leave()

    def close(self) -> None:
        """Begin nothing more, and wait for what is being done."""
        self._room.close()
        for pool in (self._downloads, self._renders, self._uploads):
            pool.shutdown(cancel_futures=True)

    def _begin(self, batch: Batch, converger: Converger) -> BatchInFlight:
        flight = BatchInFlight(batch, converger)
        for request in batch.requests:
            self._downloads.submit(self._download, flight, request)
        return flight

    def _download(self, flight: BatchInFlight, request: Request) -> None:
        if flight.has_failed or not self._room.enter(request.size):
            flight.lose(Stage.DOWNLOAD)
            return
        inside = _Inside(flight, Share(self._room, request.size))
        try:
            step = flight.converger.download(request, inside.share)
        except BaseException as error:  # noqa: BLE001  The step that waits for it raises it.
            self._lose(inside, Stage.DOWNLOAD, error)
            return
        flight.passed(Stage.DOWNLOAD)
        if isinstance(step, Downloaded):
            self._renders.submit(self._render, inside, step)
        else:
            inside.share.drop()
            flight.passed(Stage.RENDER)
            self._uploads.submit(self._upload, inside, step, 0)

    def _render(self, inside: _Inside, downloaded: Downloaded) -> None:
        flight, size = inside.flight, 0
        if flight.has_failed:
            self._lose(inside, Stage.RENDER)
            return
        try:
            step = flight.converger.resize(downloaded)
            if isinstance(step, Resized):
                if self._renditions.take(step.bytes_out):
                    size = step.bytes_out
                else:
                    # Too many wait for their upload.
                    step = written(flight.converger, step)
        except BaseException as error:  # noqa: BLE001  The step that waits for it raises it.
            self._lose(inside, Stage.RENDER, error)
            return
        flight.passed(Stage.RENDER)
        inside.share.drop()
        self._uploads.submit(self._upload, inside, step, size)

    def _upload(self, inside: _Inside, step: Resized | Settled | Confirmed, size: int) -> None:
        flight = inside.flight
        try:
            if flight.has_failed:
                flight.lose(Stage.UPLOAD)
                return
            outcome = written(flight.converger, step)
            is_confirmed = flight.converger.is_confirmed(outcome.settled)
            flight.settle(outcome, is_confirmed=is_confirmed)
        except BaseException as error:  # noqa: BLE001  The step that waits for it raises it.
            flight.lose(Stage.UPLOAD, error)
        finally:
            self._renditions.give_back(size)
            self._room.leave()

    def _lose(self, inside: _Inside, stage: Stage, error: BaseException | None = None) -> None:
        inside.share.drop()
        self._room.leave()
        inside.flight.lose(stage, error)


def written(converger: Converger, step: Resized | Settled | Confirmed) -> Confirmed:
    """Write the renditions of an object, if they were made and are not written yet."""
    match step:
        case Resized():
            return Confirmed(converger.upload(step), Written.of(step))
        case Settled():
            return Confirmed(step, None)
        case _:
            return step
