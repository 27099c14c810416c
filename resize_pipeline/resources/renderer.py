"""The renderer as a Dagster resource: its children live as long as the run."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Self

import dagster as dg
from pydantic import PrivateAttr

from resize_pipeline.imaging import Rendered
from resize_pipeline.rendering import Limits, Renderer
from resize_pipeline.renditions import Rendition
from resize_pipeline.settings import Settings


class RendererResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Renders in child processes, one for each processor, with limits for each picture."""

    timeout_s: float
    memory_bytes: int
    source_pixels: int
    output_pixels: int
    pixels_at_once: int
    _renderer: Renderer | None = PrivateAttr(default=None)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build the resource."""
        return cls(**asdict(Limits.from_settings(settings)))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Start the children."""
        limits = Limits(
            timeout_s=self.timeout_s,
            memory_bytes=self.memory_bytes,
            source_pixels=self.source_pixels,
            output_pixels=self.output_pixels,
            pixels_at_once=self.pixels_at_once,
        )
        self._renderer = Renderer(limits)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """End the children."""
        if self._renderer:
            self._renderer.close()

    @property
    def workers(self) -> int:
        """Number of children."""
        return self._started().workers

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make the renditions of one picture.

        Raises:
            PermanentError: as `Renderer.render`.
        """
        return self._started().render(data, renditions)

    def _started(self) -> Renderer:
        if self._renderer is None:
            msg = "the renderer is used outside of a run"
            raise RuntimeError(msg)
        return self._renderer
