"""The command line, `resize-pipeline`: each command calls the module that does the work."""

import sys

import typer
from rich.console import Console

from resize_pipeline.errors import ResizePipelineError

app = typer.Typer(
    help="Resized renditions of every image in a MinIO bucket, driven by Kafka events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
stack_app = typer.Typer(
    help="Real Kafka and real MinIO on this machine, without Docker.", no_args_is_help=True
)
app.add_typer(stack_app, name="stack")

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1."""
    try:
        app()
    except ResizePipelineError as error:
        errors.print(f"resize-pipeline: {error}", style="red")
        sys.exit(1)
