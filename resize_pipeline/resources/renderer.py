"""Offers the renderer as a Dagster resource, whose children live as long as the run.

A warm worker keeps them for its next run, because starting each of them costs half a second of CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Protocol, Self, TypeVar

import dagster as dg
from pydantic import PrivateAttr

from resize_pipeline.imaging.limits import RenderLimits, RenderTime
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.analyses import Analysis, is_own
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings


class Closable(Protocol):
    """What is closed when a run ends."""

    def close(self) -> None:
        """Wait for what is being done."""
        ...


C = TypeVar("C", bound=Closable)


class IdleRenderer:
    """Keeps at most one renderer between two runs of this process."""

    def __init__(self) -> None:
        """Start without a renderer."""
        self.is_on = False
        self._lock = Lock()
        self._renderer: Renderer | None = None

    def take(self, limits: RenderLimits) -> Renderer:
        """Return the idle renderer if it has these limits, or else a new one."""
        with self._lock:
            found, self._renderer = self._renderer, None
        # If a child was killed in the meantime, the next picture must not be blamed for it.
        if found and found.limits == limits and found.is_ready:
            return found
        if found:
            found.close()
        return Renderer(limits)

    def give_back(self, renderer: Renderer) -> None:
        """Keep the renderer if that is on and its children are idle; else end them."""
        with self._lock:
            if self.is_on and self._renderer is None and renderer.is_ready:
                self._renderer = renderer
                return
        renderer.close()


idle = IdleRenderer()


def keep_children() -> None:
    """Keep the renderer of each run for the next run of this process."""
    idle.is_on = True


@dataclass(frozen=True)
class SharedRenderer:
    """Renders pictures that share their time."""

    renderer: "RendererResource"
    render_time: RenderTime
    analyses: Sequence[Analysis] = ()

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make the renditions of one picture.

        Raises:
            PermanentError: as in `Renderer.render`.
            SlowPictureError: as in `Renderer.render`.
        """
        return self.renderer.render(data, renditions, self.render_time, self.analyses)


class RendererResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Renders in child processes, one for each processor, with limits for each picture."""

    timeout_s: float
    memory_bytes: int
    source_pixels: int
    output_pixels: int
    pixels_at_once: int
    read_paths: list[str]
    _renderer: Renderer | None = PrivateAttr(default=None)
    _user: Any = PrivateAttr(default=None)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build the resource."""
        return cls(**asdict(settings.render_limits))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Start the children, unless the previous run left its own."""
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        values["read_paths"] = tuple(self.read_paths)
        self._renderer = idle.take(RenderLimits(**values))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """End the children, or keep them."""
        if self._user:
            self._user.close()
            self._user = None
        if self._renderer:
            idle.give_back(self._renderer)
            self._renderer = None

    def user(self, make: Callable[[], C]) -> C:
        """Return what renders in threads for the whole run, made at the first call.

        It is closed before the children end, which its threads would wait for.
        """
        if self._user is None:
            self._user = make()
        return self._user

    def give_way(self) -> None:
        """Let this run render only while no other process needs the processors."""
        self._started().give_way()

    @property
    def workers(self) -> int:
        """Number of children."""
        return self._started().workers

    def threads(self, analyses: Sequence[Analysis]) -> int:
        """Return how many pictures to pass on at once, so that functions get their batches."""
        return self.workers + max((one.batch or 1 for one in analyses if is_own(one)), default=0)

    def render(
        self,
        data: bytes,
        renditions: Sequence[Rendition],
        render_time: RenderTime | None = None,
        analyses: Sequence[Analysis] = (),
    ) -> list[Rendered]:
        """Make the renditions of one picture.

        Raises:
            PermanentError: as in `Renderer.render`.
            SlowPictureError: as in `Renderer.render`.
        """
        return self._started().render(data, renditions, render_time, analyses)

    def describe(self, data: bytes, analyses: Sequence[Analysis] = ()) -> Facts:
        """Return what a picture is like, without renditions.

        Raises:
            PermanentError: as in `Renderer.render`.
        """
        return self._started().describe(data, analyses)

    def contact_sheet(self, pictures: Sequence[bytes], *, max_bytes: int) -> bytes | None:
        """Draw a WebP that shows renditions.

        Raises:
            PermanentError: as in `Renderer.contact_sheet`.
        """
        return self._started().contact_sheet(pictures, max_bytes=max_bytes)

    def _started(self) -> Renderer:
        if self._renderer is None:
            msg = "the renderer is used outside of a run"
            raise RuntimeError(msg)
        return self._renderer
