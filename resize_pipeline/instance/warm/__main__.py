"""`python -m resize_pipeline.instance.warm FOLDER [--owned]`.

FOLDER is private, holds the description of the code location, and gets the socket. With `--owned`
the process ends when its standard input does.
"""

import os
import sys
from pathlib import Path

from resize_pipeline.instance.warm.wire import SOCKET_NAME, listen


def main(arguments: list[str]) -> None:
    """Run this process's part, then in each forked process its own."""
    folder = Path(arguments[0])
    owner = None
    if "--owned" in arguments:
        owner = os.dup(0)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
    # Before the imports that take a second, so that launchers can connect and wait.
    listener = listen(folder / SOCKET_NAME)
    listener.settimeout(0)

    from resize_pipeline.instance.warm.parent import Parent  # noqa: PLC0415
    from resize_pipeline.instance.warm.processes import SPEC_NAME, Spec, Task  # noqa: PLC0415

    spec = Spec.model_validate_json((folder / SPEC_NAME).read_bytes())
    task: Task | None = Parent(spec, listener, owner, folder)
    while task:
        task = task()


if __name__ == "__main__":
    main(sys.argv[1:])
