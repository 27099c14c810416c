"""The IO manager between the steps of a run: memory that drops a value once it has been read."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

Identifier = tuple[str, ...]

IN_PROCESS = ("in_process", "execute_in_process_executor")
"""Names of the executors whose steps share a process; the second is of `execute_in_process`."""


class ScratchIOManager(dg.ConfigurableIOManager):
    """Passes each value from the step that made it to the one step that reads it.

    A batch of images is large, so it must not outlive its reader as it would in Dagster's
    `mem_io_manager`. Values never leave the process, so all steps of a run share one executor
    process, and a retry repeats the whole run.
    """

    _values: dict[Identifier, Any] = PrivateAttr(default_factory=dict[Identifier, Any])

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep a value for its reader.

        Raises:
            dg.Failure: another process would read it.
        """
        _check_executor(context)
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


def _check_executor(context: dg.OutputContext) -> None:
    step = context.step_context
    config: Mapping[str, Any] = step.run_config
    chosen = config.get("execution", {}).get("config", {})
    if step.job_def.executor_def.name in IN_PROCESS or "in_process" in chosen:
        return
    description = (
        "images pass from step to step in memory, but this code location executes each step in a "
        "process of its own: launch or backfill the job whose name ends with resize_images_job, or "
        "add execution: {config: {in_process: {}}} in the Launchpad"
    )
    raise dg.Failure(description, allow_retries=False)
