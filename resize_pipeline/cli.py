"""The command line, `resize-pipeline`: each command calls the module that does the work."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from resize_pipeline.dead_letters import escaped, find_letters
from resize_pipeline.errors import ResizePipelineError, UserError
from resize_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from resize_pipeline.resources.kafka import KafkaResource

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
letters_app = typer.Typer(
    help="Messages that can never succeed, kept with the reason.", no_args_is_help=True
)
app.add_typer(letters_app, name="dead-letters")

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@app.command()
def up() -> None:
    """Start the local stack and Dagster, and keep them until Ctrl-C or `down`."""
    from resize_pipeline.local.dagster import ui_url
    from resize_pipeline.local.pipeline import running_pipeline

    started = time.monotonic()
    with running_pipeline(load_settings(), errors.print) as pipeline:
        settings = pipeline.settings
        errors.print(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        errors.print(f"Dagster  {ui_url(settings)}")
        errors.print(f"MinIO    {settings.minio_endpoint}, bucket {settings.source_bucket}")
        errors.print(f"Kafka    {settings.kafka_bootstrap_servers}, topic {settings.kafka_topic}")
        pipeline.supervisor.wait()
        errors.print("stopping")


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
) -> None:
    """Upload pictures drawn for it and show what becomes of each; exit code 0 if all is well.

    Uses what `up` runs with this LOCAL_DIR, or starts it for as long as the demonstration lasts.
    """
    from resize_pipeline.demo import run_demo
    from resize_pipeline.local.dagster import ui_url
    from resize_pipeline.local.pipeline import is_running, running_pipeline

    output = Console(highlight=False)
    settings = load_settings()
    if is_running(settings):
        is_well = run_demo(settings, output)
        output.print(f"Dagster  {ui_url(settings)}")
    else:
        with running_pipeline(settings, errors.print) as pipeline:
            is_well = run_demo(pipeline.settings, output)
            output.print(f"Dagster  {ui_url(settings)}")
            if keep:
                output.print("Ctrl-C stops it")
                pipeline.supervisor.wait()
            else:
                output.print("stopping; `resize-pipeline up` brings it back with this history")
    if not is_well:
        raise typer.Exit(1)


@letters_app.command("list")
def letters_list(
    *, as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False
) -> None:
    """List the dead letters that were not taken back."""
    from rich.table import Table

    kafka, settings = _kafka()
    letters = kafka.dead_letters(settings.dead_letter_topic)
    if as_json:
        for letter in letters.values():
            sys.stdout.write(json.dumps(letter.as_json()) + "\n")
        return
    table = Table("key", "position", "error", "run", "attempt", box=None)
    for letter in letters.values():
        table.add_row(
            escaped(letter.key),
            letter.position,
            escaped(letter.error_message.encode()),
            letter.run_id[:8],
            str(letter.attempt),
        )
    Console(markup=False, highlight=False).print(table if letters else "no dead letters")


@letters_app.command("show")
def letters_show(
    key: Annotated[str, typer.Argument(help="As `list` shows it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one dead letter with the original message."""
    kafka, settings = _kafka()
    (letter,) = find_letters(kafka.dead_letters(settings.dead_letter_topic), [key])
    if as_json:
        sys.stdout.write(json.dumps(letter.as_json()) + "\n")
        return
    for name, value in letter.as_json().items():
        sys.stdout.write(f"{name}: {escaped(str(value).encode())}\n")


@letters_app.command("replay")
def letters_replay(
    keys: Annotated[list[str] | None, typer.Argument(help="As `list` shows them.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False,
) -> None:
    """Put the original messages back on the topic, where the sensor finds them.

    A letter about an object stays until the object succeeds; one about a message that could not be
    parsed is taken back, because it is judged anew.
    """
    if bool(keys) == everything:
        msg = "name the dead letters to replay, or use --all"
        raise UserError(msg)
    kafka, settings = _kafka()
    letters = kafka.dead_letters(settings.dead_letter_topic)
    chosen = list(letters.values()) if everything else find_letters(letters, keys or [])
    kafka.replay(settings.kafka_topic, settings.dead_letter_topic, chosen)
    for letter in chosen:
        line = json.dumps(letter.as_json()) if as_json else f"replayed {escaped(letter.key)}"
        sys.stdout.write(line + "\n")
    if not chosen and not as_json:
        sys.stdout.write("no dead letters\n")


def _kafka() -> tuple["KafkaResource", Settings]:
    from resize_pipeline.resources.kafka import KafkaResource

    settings = load_settings()
    return KafkaResource.from_settings(settings), settings


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show position and lag in the topic, runs and the last tick; exit code 1 if Kafka is away."""
    from resize_pipeline.instance import open_instance
    from resize_pipeline.resources.kafka import KafkaResource
    from resize_pipeline.status import as_tables, pipeline_status

    settings = load_settings()
    with open_instance(settings) as instance:
        found = pipeline_status(settings, instance, KafkaResource.from_settings(settings))
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    else:
        Console(highlight=False).print(*as_tables(found), sep="\n")
    if found.error:
        raise typer.Exit(1)


@stack_app.command("up")
def stack_up() -> None:
    """Start Kafka and MinIO and keep them until Ctrl-C or `stack down`."""
    from resize_pipeline.local.stack import running_stack

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
    from resize_pipeline.local.stack import stop_stack

    was_running = stop_stack(load_settings())
    errors.print("stopped" if was_running else "nothing was running")


@stack_app.command("status")
def stack_status() -> None:
    """Show whether every server answers; exit code 1 if one does not."""
    from rich.table import Table

    from resize_pipeline.local.status import stack_status as statuses_of

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
    from resize_pipeline.provisioning import provision as run_provision

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
