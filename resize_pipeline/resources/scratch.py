"""The IO manager between the steps of a run: memory that drops a value once it has been read."""

from typing import Any

import dagster as dg
from pydantic import PrivateAttr

Identifier = tuple[str, ...]


class ScratchIOManager(dg.ConfigurableIOManager):
    """Passes each value from the step that made it to the one step that reads it.

    A batch of images is large, so it must not outlive its reader as it would in Dagster's
    `mem_io_manager`. Values never leave the process, so all steps of a run share one executor
    process, and a retry repeats the whole run.
    """

    _values: dict[Identifier, Any] = PrivateAttr(default_factory=dict[Identifier, Any])

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value for its reader."""
        self._values[tuple(context.get_identifier())] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        """Return a value to its reader and forget it.

        Raises:
            dg.Failure: another process made the value, as in a re-execution from failure.
        """
        upstream = context.upstream_output
        identifier = tuple(upstream.get_identifier()) if upstream else ()
        try:
            return self._values.pop(identifier)
        except KeyError:
            description = (
                f"the value of step {'.'.join(identifier[1:-1])!r} is gone, because images are "
                "kept in memory only while a run lasts: re-execute all steps of the run"
            )
            raise dg.Failure(description, allow_retries=False) from None
