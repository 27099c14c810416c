"""The command line, `resize-pipeline`: signatures and help texts; other modules do the work.

Each command imports what it runs, so that `--help` and the other commands start without it.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import resize_pipeline
from resize_pipeline.environment import load_settings
from resize_pipeline.errors import ResizePipelineError, UserError
from resize_pipeline.terminal import errors, guard_streams

app = typer.Typer(
    help="Make resized renditions of every image in a MinIO bucket, driven by Kafka events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
stack_app = typer.Typer(help="Run real Kafka and MinIO here, without Docker.", no_args_is_help=True)
app.add_typer(stack_app, name="stack")
letters_app = typer.Typer(
    help="Inspect and replay dead letters.\n\n"
    "A dead letter is a message that can never succeed, kept with the reason.",
    no_args_is_help=True,
)
app.add_typer(letters_app, name="dead-letters")
removed_app = typer.Typer(
    help="List and delete objects of removed renditions.\n\n"
    "A rendition is removed when it is no longer in the spec file, or has another place there.",
    no_args_is_help=True,
)
app.add_typer(removed_app, name="removed-renditions")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each.")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer passes it by position.
    if wanted:
        sys.stdout.write(f"resize-pipeline {resize_pipeline.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback handles it.
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Declare the options of the program itself."""
    # The pictures of `resize` are for whoever the user gives them to; all else is for the user.
    if context.invoked_subcommand != "resize":
        os.umask(0o077)


@app.command()
def up(
    *,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            metavar="N",
            help="Execute runs on N warm workers; also starts PostgreSQL and Valkey.",
        ),
    ] = 0,
) -> None:
    """Run the local stack and Dagster.

    Runs until Ctrl-C or `down`.
    """
    from resize_pipeline.local.pipeline import run_pipeline

    run_pipeline(load_settings(), errors.print, workers=workers)


@app.command()
def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep everything running afterwards.")
    ] = False,
) -> None:
    """Upload sample images and show the outcome of each.

    Uses the pipeline that runs in LOCAL_DIR, or starts one for the demonstration, with
    RUN_MIN_INTERVAL_S=0. Exit code 0 if every image ended as expected.
    """
    from resize_pipeline.demo import run_demo

    if not run_demo(load_settings(), errors.print, keep=keep):
        raise typer.Exit(1)


@letters_app.command("list")
def letters_list(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list.")] = 100,
    everything: Annotated[bool, typer.Option("--all", help="List all, as a stream.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """List the newest dead letters, the newest last."""
    from resize_pipeline.commands.dead_letters import list_letters

    list_letters(load_settings(), None if everything else limit, as_json=as_json)


@letters_app.command("show")
def letters_show(
    key: Annotated[str, typer.Argument(help="The key as `list` prints it, or without the bucket.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with the original message."""
    from resize_pipeline.commands.dead_letters import show_letter

    show_letter(load_settings(), key, as_json=as_json)


@letters_app.command("replay")
def letters_replay(
    keys: Annotated[
        list[str] | None,
        typer.Argument(help="Keys as `list` prints them, or without the bucket."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Replay all dead letters.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Send original messages to the topic again.

    The sensor reads them there. The dead letter of an object stays until the object succeeds; the
    dead letter of a message that could not be parsed is removed at once, because the message is
    parsed again.
    """
    if bool(keys) == everything:
        msg = "name the dead letters to replay, or use --all"
        raise UserError(msg)
    from resize_pipeline.commands.dead_letters import replay_letters

    replay_letters(load_settings(), None if everything else keys, as_json=as_json)


@removed_app.command("list")
def removed_list(*, as_json: AsJsonLines = False) -> None:
    """List removed and moved renditions that left objects behind.

    Dagster's history says where they were written. Objects that the pipeline did not write are
    not counted.
    """
    from resize_pipeline.commands.removed_renditions import list_removed

    list_removed(load_settings(), as_json=as_json)


@removed_app.command("delete")
def removed_delete(
    name: Annotated[str, typer.Argument(help="The rendition as `list` prints it.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete the objects that a removed rendition left behind.

    Does not ask for confirmation. Keeps what the pipeline did not write and what belongs to a
    current rendition.
    """
    from resize_pipeline.commands.removed_renditions import delete_removed

    delete_removed(load_settings(), name, dry_run=dry_run)


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show lag, gaps, dead letters and runs.

    Exit code 1 if Kafka or MinIO can't be read, if pictures have no events, or if a run failed and
    no later run has made up for it.
    """
    from resize_pipeline.commands.status import print_status

    if not print_status(load_settings(), as_json=as_json):
        raise typer.Exit(1)


@app.command()
def metrics() -> None:
    """Serve metrics to Prometheus at /metrics.

    Runs until Ctrl-C, at METRICS_HOST and METRICS_PORT. Answers also while Kafka, MinIO or
    Dagster's daemon are down.
    """
    from resize_pipeline.commands.metrics import serve_metrics

    serve_metrics(load_settings())


@app.command()
def reprocess(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys in the source bucket.")] = None,
    *,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="All objects whose key starts with this, of any hour; '' for everything."
        ),
    ] = None,
    version_id: Annotated[
        str, typer.Option(help="Refuse unless this is the newest version of the one key.")
    ] = "",
    rendition: Annotated[
        list[str] | None, typer.Option(help="Only this rendition; may be repeated.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make current renditions again, too.")
    ] = False,
) -> None:
    """Launch runs for named objects or a prefix.

    Makes the renditions that are not current. The Dagster UI launches the runs, so it must be
    running.
    """
    if bool(keys) == (prefix is not None):
        msg = "name either keys or a --prefix, which is '' for everything"
        raise typer.BadParameter(msg)
    if version_id and len(keys or ()) != 1:
        msg = "--version-id needs exactly one key"
        raise typer.BadParameter(msg)
    from resize_pipeline.commands.reprocess import describe
    from resize_pipeline.commands.reprocess import reprocess as launch

    for run in launch(
        load_settings(),
        keys=keys or [],
        prefix=prefix,
        version_id=version_id,
        renditions=rendition or [],
        force=force,
    ):
        sys.stdout.write(f"{describe(run, prefix)}\n")


@stack_app.command("up")
def stack_up() -> None:
    """Run Kafka and MinIO until Ctrl-C or `stack down`."""
    from resize_pipeline.local.stack import run_stack

    run_stack(load_settings(), errors.print)


@app.command()
@stack_app.command("down")
def down() -> None:
    """Stop what `up` or `stack up` started.

    Stops what runs in LOCAL_DIR, and waits until all of it has ended.
    """
    from resize_pipeline.local.stack import stop_stack

    settings = load_settings()
    was_running = stop_stack(settings)
    errors.print(
        "stopped" if was_running else f"nothing was running in {settings.local_dir.absolute()}"
    )


@stack_app.command("status")
def stack_status() -> None:
    """Show whether every server answers.

    Exit code 1 if one does not.
    """
    from resize_pipeline.local.status import print_stack_status

    if not print_stack_status(load_settings()):
        raise typer.Exit(1)


@app.command()
def provision(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")
    ] = False,
    credentials_file: Annotated[
        Path | None,
        typer.Option(help="File for the credentials of a new MinIO user, written with mode 0600."),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Change what another pipeline made on the server, which breaks it."
        ),
    ] = False,
) -> None:
    """Set up topics, buckets, notifications and user.

    Changes only what differs and what it made itself, so it can be run at any time. Exit code 1 if
    a step needs an administrator, or if another pipeline made what differs.
    """
    from resize_pipeline.local.stack import runs_minio
    from resize_pipeline.provisioning.provision import provision as run_provision

    settings = load_settings()
    steps = run_provision(
        settings,
        dry_run=dry_run,
        take_over=take_over or runs_minio(settings),
        credentials_file=credentials_file,
        report=lambda step: typer.echo(step.text()),
    )
    if any(step.state == "needs administrator" for step in steps):
        raise typer.Exit(1)


@app.command()
def resize(  # noqa: PLR0913 - one parameter for each option.
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    *,
    out: Annotated[Path, typer.Option(help="Output folder; gets one subfolder for each bucket.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Render all files in folders and their subfolders.")
    ] = False,
    spec: Annotated[
        Path | None, typer.Option(help="Spec file to use instead of RENDITIONS_FILE.")
    ] = None,
    allow_transforms: Annotated[
        bool, typer.Option("--allow-transforms", help="Let that file name code to run.")
    ] = False,
    as_json: AsJsonLines = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a contact sheet, as a page (.html) or an image (.png, .jpg, .webp)."
        ),
    ] = None,
) -> None:
    """Render local files exactly as the job renders objects.

    Needs no server. Exit code 0 if all were rendered, 1 if some were rejected, 2 for wrong use.
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
    """Run the command line; report an error that the user can fix in one line, with exit code 1."""
    guard_streams()
    try:
        app()
    except ResizePipelineError as error:
        errors.print(f"resize-pipeline: {error}", style="red")
        sys.exit(1)
    except OSError as error:
        # With a file name, the user can fix the file or folder; without one, it is a bug.
        if error.filename is None:
            raise
        errors.print(f"resize-pipeline: {error.filename}: {error.strerror}", style="red")
        sys.exit(1)
