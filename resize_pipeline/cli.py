"""The command line, `resize-pipeline`: each command calls the module that does the work."""

import json
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import ResizePipelineError, UserError
from resize_pipeline.kafka.dead_letters import escaped, find_letters
from resize_pipeline.settings import Settings

if TYPE_CHECKING:
    from resize_pipeline.commands.removed_renditions import RemovedRendition
    from resize_pipeline.resources.kafka import KafkaResource
    from resize_pipeline.resources.minio import MinioResource

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
removed_app = typer.Typer(
    help="Objects of renditions that are no longer in the spec file.", no_args_is_help=True
)
app.add_typer(removed_app, name="removed-renditions")

PIPED_WIDTH = 10_000
"""Columns of a table that nobody looks at; more than keys (1024 bytes) and errors take together."""

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        sys.stdout.write(f"resize-pipeline {metadata.version('resize-pipeline')}\n")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


@app.command()
def up(
    *,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            metavar="N",
            help="Execute runs on N warm workers, with PostgreSQL and Valkey started too.",
        ),
    ] = 0,
) -> None:
    """Run the local stack and Dagster until Ctrl-C or `down`."""
    from resize_pipeline.local.pipeline import running_pipeline

    started = time.monotonic()
    with running_pipeline(load_settings(), errors.print, workers=workers) as pipeline:
        settings = pipeline.settings
        errors.print(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        errors.print(f"Dagster  {settings.ui_url}")
        errors.print(f"MinIO    {settings.minio_endpoint}, bucket {settings.source_bucket}")
        errors.print(f"Kafka    {settings.kafka_bootstrap_servers}, topic {settings.kafka_topic}")
        pipeline.supervisor.wait()
        errors.print("stopping")


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
) -> None:
    """Upload sample pictures and show what becomes of each.

    Uses what `up` runs with this LOCAL_DIR, or starts it for as long as the demonstration lasts,
    then with RUN_MIN_INTERVAL_S=0. Exit code 0 if every picture ended as it must.
    """
    from resize_pipeline.demo import run_demo
    from resize_pipeline.local.pipeline import is_running, running_pipeline

    output = Console(highlight=False)
    settings = load_settings()
    if is_running(settings):
        is_well = run_demo(settings, output)
        output.print(f"Dagster  {settings.ui_url}")
    else:
        # Somebody looks on.
        settings = settings.model_copy(update={"run_min_interval_s": 0.0})
        with running_pipeline(settings, errors.print) as pipeline:
            is_well = run_demo(pipeline.settings, output)
            if keep:
                output.print(f"Dagster  {settings.ui_url}; Ctrl-C stops it")
                pipeline.supervisor.wait()
            else:
                output.print(
                    "stopping; `resize-pipeline up` (`make up`) brings it back with this history"
                )
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
    table = Table(box=None)
    for heading in ("key", "position", "error", "run", "attempt"):
        table.add_column(heading, overflow="fold")
    for letter in letters.values():
        table.add_row(
            escaped(letter.key),
            letter.position,
            escaped(letter.error_message.encode()),
            letter.run_id[:8],
            str(letter.attempt),
        )
    output = Console(markup=False, highlight=False)
    if not output.is_terminal:
        # A program reads lines, and a key is to be found in one.
        output.width = PIPED_WIDTH
    output.print(table if letters else "no dead letters")


@letters_app.command("show")
def letters_show(
    key: Annotated[str, typer.Argument(help="As `list` shows it, or without the bucket.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one dead letter with the original message."""
    kafka, settings = _kafka()
    letters = kafka.dead_letters(settings.dead_letter_topic)
    (letter,) = find_letters(letters, [key], settings.source_bucket)
    if as_json:
        sys.stdout.write(json.dumps(letter.as_json()) + "\n")
        return
    for name, value in letter.as_json().items():
        if value is not None:
            sys.stdout.write(f"{name}: {escaped(str(value).encode())}\n")


@letters_app.command("replay")
def letters_replay(
    keys: Annotated[
        list[str] | None, typer.Argument(help="As `list` shows them, or without the bucket.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False,
) -> None:
    """Put original messages back on the topic.

    The sensor finds them there. A letter about an object stays until the object succeeds; one about
    a message that could not be parsed is taken back, because it is judged anew.
    """
    if bool(keys) == everything:
        msg = "name the dead letters to replay, or use --all"
        raise UserError(msg)
    kafka, settings = _kafka()
    letters = kafka.dead_letters(settings.dead_letter_topic)
    chosen = (
        list(letters.values())
        if everything
        else find_letters(letters, keys or [], settings.source_bucket)
    )
    kafka.replay(settings.kafka_topic, settings.dead_letter_topic, chosen)
    for letter in chosen:
        line = json.dumps(letter.as_json()) if as_json else f"replayed {escaped(letter.key)}"
        sys.stdout.write(line + "\n")
    if not chosen and not as_json:
        sys.stdout.write("no dead letters\n")


def _kafka() -> tuple["KafkaResource", Settings]:
    from resize_pipeline.instance.open import dagster_environment
    from resize_pipeline.resources.kafka import KafkaResource

    settings = load_settings()
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        # Another folder's default may be another pipeline's topic.
        dagster_environment(settings)
    return KafkaResource.from_settings(settings), settings


@removed_app.command("list")
def removed_list(
    *, as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False
) -> None:
    """List removed renditions that left objects, and those that were moved.

    Dagster's history tells where they were; only objects that the pipeline wrote count.
    """
    from rich.table import Table

    from resize_pipeline.commands.removed_renditions import left_objects

    found, minio = _removed(load_settings())
    table = Table("rendition", "place", "objects", "bytes", "in the spec file", box=None)
    for one in found:
        objects = size = 0
        for item in left_objects(minio, one):
            objects += 1
            size += item.size
        if not objects:
            continue
        if as_json:
            line = {
                "rendition": one.place.rendition,
                "bucket": one.place.bucket,
                "prefix": one.place.prefix,
                "objects": objects,
                "bytes": size,
                "moved": one.is_moved,
            }
            sys.stdout.write(json.dumps(line) + "\n")
        table.add_row(
            one.place.rendition,
            escaped(one.place.uri.encode()),
            str(objects),
            str(size),
            "elsewhere" if one.is_moved else "no",
        )
    if not as_json:
        output = Console(markup=False, highlight=False)
        output.print(table if table.row_count else "no removed renditions")


@removed_app.command("delete")
def removed_delete(
    name: Annotated[str, typer.Argument(help="As `list` shows it.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete the objects that a removed rendition left.

    Asks nothing. What the pipeline did not write stays, and what is a current rendition's.
    """
    from resize_pipeline.commands.removed_renditions import delete_objects, left_objects, places_of

    settings = load_settings()
    found, minio = _removed(settings)
    for one in places_of(found, name, settings.renditions_file):
        if dry_run:
            gone = ((1, item.size) for item in left_objects(minio, one))
        else:
            gone = delete_objects(minio, one)
        _delete(gone, "would delete" if dry_run else "deleted", escaped(one.place.uri.encode()))


def _delete(gone: Iterable[tuple[int, int]], what: str, place: str) -> None:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    objects = size = 0

    def said() -> str:
        return f"{what} {objects} objects, {size} bytes, below {place}"

    # How many there will be, nobody knows before the listing is over.
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    try:
        with Progress(
            *columns, console=errors, transient=True, disable=not errors.is_terminal
        ) as bar:
            task = bar.add_task(said())
            for some, their_size in gone:
                objects += some
                size += their_size
                bar.update(task, description=said())
    finally:
        # What is gone is gone, also when the rest can't be.
        sys.stdout.write(said() + "\n")


def _removed(settings: Settings) -> tuple[list["RemovedRendition"], "MinioResource"]:
    from resize_pipeline.commands.removed_renditions import removed_renditions, written_places
    from resize_pipeline.instance.open import open_instance
    from resize_pipeline.provisioning.admin import Server
    from resize_pipeline.renditions.file import load_renditions

    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    with open_instance(settings) as instance:
        places = written_places(instance, renditions)
    found = removed_renditions(places, renditions, settings.source_bucket)
    return found, Server(settings).s3()


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show lag, gaps, dead letters and runs.

    Exit code 1 if Kafka can't be read.
    """
    from rich.text import Text

    from resize_pipeline.commands.status import as_tables, pipeline_status
    from resize_pipeline.instance.open import open_instance
    from resize_pipeline.resources.kafka import KafkaResource

    settings = load_settings()
    with open_instance(settings) as instance:
        found = pipeline_status(settings, instance, KafkaResource.from_settings(settings))
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    else:
        output = Console(highlight=False)
        for part in as_tables(found):
            # Lines are left whole, so that they can be searched for and copied.
            output.print(part, soft_wrap=isinstance(part, Text))
    if found.error:
        raise typer.Exit(1)


@app.command()
def reprocess(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys in the source bucket.")] = None,
    *,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="All objects whose key starts with it, whatever their hour; '' for everything."
        ),
    ] = None,
    version_id: Annotated[
        str, typer.Option(help="Refuse if this is not the newest version of the one key.")
    ] = "",
    rendition: Annotated[
        list[str] | None, typer.Option(help="Only this rendition; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Current ones, too.")] = False,
) -> None:
    """Launch runs for named objects or a prefix.

    Makes the renditions that are not current. Dagster's UI has to be running: it launches the runs.
    """
    if bool(keys) == (prefix is not None):
        msg = "name either keys or a --prefix, which is '' for everything"
        raise typer.BadParameter(msg)
    if version_id and len(keys or ()) != 1:
        msg = "--version-id is of one object: name exactly one key"
        raise typer.BadParameter(msg)
    from resize_pipeline.commands.reprocess import reprocess as launch

    settings = load_settings()
    for run in launch(
        settings,
        keys=keys or [],
        prefix=prefix,
        version_id=version_id,
        renditions=rendition or [],
        force=force,
    ):
        if run.keys:
            what = "1 object" if len(run.keys) == 1 else f"{len(run.keys)} objects"
        else:
            what = f"prefix {escaped(prefix.encode())}" if prefix else "everything"
        sys.stdout.write(f"run {run.run_id}, partition {run.partition}: {what}\n")


@stack_app.command("up")
def stack_up() -> None:
    """Run Kafka and MinIO until Ctrl-C or `stack down`."""
    from resize_pipeline.local.stack import local_servers, running_stack

    settings = load_settings()
    servers = local_servers(settings)
    if not servers:
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
    """Stop what `up` or `stack up` started.

    Waits until all of it is gone; LOCAL_DIR says which is meant.
    """
    from resize_pipeline.local.stack import stop_stack

    settings = load_settings()
    was_running = stop_stack(settings)
    errors.print(
        "stopped" if was_running else f"nothing of {settings.local_dir.absolute()} was running"
    )


@stack_app.command("status")
def stack_status() -> None:
    """Show whether every server answers.

    Exit code 1 if one does not.
    """
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
    """Set up topics, buckets, notifications and MinIO user.

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


@app.command()
def resize(  # noqa: PLR0913  As many as there are options.
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that gets a folder for each bucket.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Render all files in folders, and in theirs.")
    ] = False,
    spec: Annotated[
        Path | None, typer.Option(help="The rendition specs, if not RENDITIONS_FILE.")
    ] = None,
    allow_transforms: Annotated[
        bool, typer.Option("--allow-transforms", help="Let that file name code to be run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each.")] = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help="Show all of them on a page (.html) or in a picture (.png, .jpg, .webp)."
        ),
    ] = None,
) -> None:
    """Make the renditions of files on this machine, as the job would, without any server.

    Exit code 0 if all were rendered, 1 if some were rejected, 2 for wrong use.
    """
    from resize_pipeline.commands.resize import run_resize

    try:
        rejected = run_resize(
            paths,
            out,
            recursive=recursive,
            spec=spec,
            allow_transforms=allow_transforms,
            as_json=as_json,
            sheet=contact_sheet,
        )
    except UserError as error:
        errors.print(f"resize-pipeline: {error}", style="red")
        raise typer.Exit(2) from error
    if rejected:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1."""
    try:
        app()
    except ResizePipelineError as error:
        errors.print(f"resize-pipeline: {error}", style="red")
        sys.exit(1)
    except OSError as error:
        # A file or folder that can't be read or written; anything else is a fault of ours.
        if error.filename is None:
            raise
        errors.print(f"resize-pipeline: {error.filename}: {error.strerror}", style="red")
        sys.exit(1)
