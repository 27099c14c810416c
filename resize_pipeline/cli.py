"""The command line, `resize-pipeline`: each command calls the module that does the work."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.settings import load_settings

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


@app.command()
def up() -> None:
    """Start the local stack and Dagster, and keep them until Ctrl-C or `down`."""
    from resize_pipeline.local.dagster import ui_url  # noqa: PLC0415
    from resize_pipeline.local.pipeline import running_pipeline  # noqa: PLC0415

    started = time.monotonic()
    with running_pipeline(load_settings(), errors.print) as pipeline:
        settings = pipeline.settings
        errors.print(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        errors.print(f"Dagster  {ui_url(settings)}")
        errors.print(f"MinIO    {settings.minio_endpoint}, bucket {settings.source_bucket}")
        errors.print(f"Kafka    {settings.kafka_bootstrap_servers}, topic {settings.kafka_topic}")
        pipeline.supervisor.wait()
        errors.print("stopping")


@stack_app.command("up")
def stack_up() -> None:
    """Start Kafka and MinIO and keep them until Ctrl-C or `stack down`."""
    # Here and below: a command imports what it runs, so that the others start without it.
    from resize_pipeline.local.stack import running_stack  # noqa: PLC0415

    settings = load_settings()
    if not settings.runs_local_kafka and not settings.runs_local_minio:
        errors.print("nothing to start: Kafka and MinIO are both elsewhere")
        return
    started = time.monotonic()
    with running_stack(settings) as supervisor:
        for service in supervisor.services:
            host, port = service.address or ("", 0)
            errors.print(f"{service.name} {service.version} answers on {host}:{port}")
        errors.print(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        supervisor.wait()
        errors.print("stopping")


@app.command()
@stack_app.command("down")
def down() -> None:
    """Stop what `up` or `stack up` started with this LOCAL_DIR, and wait until it is gone."""
    from resize_pipeline.local.stack import stop_stack  # noqa: PLC0415

    was_running = stop_stack(load_settings())
    errors.print("stopped" if was_running else "nothing was running")


@stack_app.command("status")
def stack_status() -> None:
    """Show whether every server answers; exit code 1 if one does not."""
    from rich.table import Table  # noqa: PLC0415

    from resize_pipeline.local.status import stack_status as statuses_of  # noqa: PLC0415

    statuses = statuses_of(load_settings())
    table = Table("server", "state", "address", "pid", "version", box=None)
    for status in statuses:
        pid = str(status.pid) if status.pid else ""
        table.add_row(status.name, status.state, status.address, pid, status.version)
    Console(markup=False, highlight=False).print(table)
    if not all(status.answers for status in statuses):
        raise typer.Exit(1)


@app.command()
def provision(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")
    ] = False,
    credentials_file: Annotated[
        Path | None, typer.Option(help="Where a new MinIO user's credentials go, with mode 0600.")
    ] = None,
) -> None:
    """Make topics, buckets, notifications and the pipeline's MinIO user what they should be.

    Changes only what differs, so it can be run at any time. Exit code 1 if something is left that
    needs an administrator.
    """
    from resize_pipeline.provisioning import provision as run_provision  # noqa: PLC0415

    steps = run_provision(
        load_settings(),
        dry_run=dry_run,
        credentials_file=credentials_file,
        report=lambda step: typer.echo(step.text()),
    )
    if any(step.state == "needs administrator" for step in steps):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1."""
    try:
        app()
    except ResizePipelineError as error:
        errors.print(f"resize-pipeline: {error}", style="red")
        sys.exit(1)
