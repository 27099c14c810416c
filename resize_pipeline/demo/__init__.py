"""The demonstration: draws pictures, uploads them, and shows the outcome of each.

Everything in its table is observed: events are read from the topic, renditions are downloaded and
measured, reasons come from the metadata of runs.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from resize_pipeline.demo.outcomes import Observer, Outcome, upload
from resize_pipeline.demo.samples import draw_samples
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.instance.open import open_instance
from resize_pipeline.local.pipeline import is_running, running_pipeline
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole

DEADLINE_S = 240.0
LOOK_EVERY_S = 0.5
# With offset and run, and one rendition in a line, these fit into 80 columns.
KEY_WIDTH, EVENT_WIDTH, OUTCOME_WIDTH = 20, 10, 28
EVENT_WORDS = {"CompleteMultipartUpload": "Multipart"}


def run_demo(settings: Settings, say: Callable[[str], None], *, keep: bool) -> bool:
    """Run the demonstration on the pipeline in LOCAL_DIR, or on one that is started for it.

    Args:
        settings: where the pipeline runs, or is started.
        say: called with each line about the start.
        keep: leave a pipeline that was started for it running until Ctrl-C.

    Returns:
        Whether every object ended as expected.

    Raises:
        UserError: a port is taken, a file is missing, or a server refuses a necessary request.
        ServiceError: a service ended or was not ready in time.
        TransientError: a server can't be reached.
    """
    console = SafeConsole()
    if is_running(settings):
        is_well = demonstrate(settings, console)
        console.print(f"Dagster  {settings.ui_url}")
        return is_well
    # A person is watching and should not have to wait for the interval.
    settings = settings.model_copy(update={"run_min_interval_s": 0.0})
    with running_pipeline(settings, say) as pipeline:
        is_well = demonstrate(pipeline.settings, console)
        if keep:
            console.print(f"Dagster  {settings.ui_url}; Ctrl-C stops it")
            pipeline.supervisor.wait()
        else:
            console.print(
                "stopping; `resize-pipeline up` (`make up`) starts it again with this history"
            )
    return is_well


def demonstrate(settings: Settings, console: SafeConsole) -> bool:
    """Upload the samples to a running pipeline and show the outcome of each.

    Args:
        settings: of the running pipeline. The administrator's keys upload, because the pipeline's
            own user may only read the source bucket.
        console: shows the progress and the table.

    Returns:
        Whether every object ended as expected.

    Raises:
        TransientError: a server can't be reached.
        UserError: a server refuses a necessary request.
    """
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    access_key, secret_key = settings.administrator
    minio = MinioResource.from_settings(settings, access_key=access_key, secret_key=secret_key)
    # Each demonstration uploads objects of its own.
    prefix = f"demo/{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}/"
    with (
        open_instance(settings) as instance,
        closing(Renderer(settings.render_limits, workers=1)) as renderer,
    ):
        observer = Observer(
            settings=settings,
            kafka=KafkaResource.from_settings(settings),
            minio=minio,
            renditions=renditions,
            instance=instance,
            renderer=renderer,
        )
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            outcomes = _upload_samples(minio, settings.source_bucket, prefix, progress)
            _watch(observer, outcomes, renditions, progress)
    console.print(_table(outcomes, renditions, prefix))
    wrong = sum(bool(outcome.problems(renditions)) for outcome in outcomes)
    console.print(f"{len(outcomes) - wrong} of {len(outcomes)} objects ended as expected")
    for outcome in outcomes:
        if outcome.reason:
            console.print(
                f"{outcome.sample.key} left a dead letter: `resize-pipeline dead-letters list`"
            )
    return not wrong


def _upload_samples(
    minio: MinioResource, bucket: str, prefix: str, progress: Progress
) -> list[Outcome]:
    samples = list(draw_samples())
    task = progress.add_task(f"uploading to {bucket}/{prefix}", total=len(samples))
    outcomes: list[Outcome] = []
    for sample in samples:
        etag = upload(minio, bucket, sample, prefix)
        outcomes.append(Outcome(sample, prefix + sample.key, etag))
        progress.advance(task)
    return outcomes


def _watch(
    observer: Observer,
    outcomes: Sequence[Outcome],
    renditions: Sequence[Rendition],
    progress: Progress,
) -> None:
    def is_over(outcome: Outcome) -> bool:
        return outcome.is_over(renditions)

    def stage(
        title: str, reached: Callable[[Outcome], bool]
    ) -> tuple[TaskID, Callable[[Outcome], bool]]:
        return progress.add_task(title, total=len(outcomes)), reached

    stages = [
        stage("events on the topic", _has_event),
        stage("planned in Dagster runs", _has_run),
        stage("rendered or rejected", is_over),
    ]
    deadline = time.monotonic() + DEADLINE_S
    while not all(map(is_over, outcomes)):
        observer.look(outcomes)
        for task, reached in stages:
            progress.update(task, completed=sum(map(reached, outcomes)))
        if time.monotonic() > deadline or observer.failed_runs(outcomes):
            break
        time.sleep(LOOK_EVERY_S)


def _has_event(outcome: Outcome) -> bool:
    return outcome.offset is not None


def _has_run(outcome: Outcome) -> bool:
    return outcome.run_id is not None


def _table(outcomes: Sequence[Outcome], renditions: Sequence[Rendition], prefix: str) -> Table:
    table = Table(title=f"outcomes below {prefix}", box=None, pad_edge=False)
    table.add_column("object", overflow="fold", max_width=KEY_WIDTH)
    table.add_column("event", overflow="fold", max_width=EVENT_WIDTH)
    table.add_column("offset", no_wrap=True)
    table.add_column("run", no_wrap=True)
    table.add_column("outcome", min_width=OUTCOME_WIDTH)
    for outcome in outcomes:
        table.add_row(
            Text(outcome.sample.key),
            Text(EVENT_WORDS.get(outcome.event or "none", outcome.event or "none")),
            Text(f"{outcome.offset[0]}:{outcome.offset[1]}" if outcome.offset else "none"),
            Text(outcome.run_id[:8] if outcome.run_id else "none"),
            _result(outcome, renditions),
        )
    return table


def _result(outcome: Outcome, renditions: Sequence[Rendition]) -> Text:
    problems = outcome.problems(renditions)
    if not problems and outcome.reason:
        return Text(f"rejected: {outcome.reason}", style="green")
    lines = [
        Text(f"{rendition.name} {made.size[0]}x{made.size[1]}, {made.length:,} B", style="green")
        for rendition in renditions
        if (made := outcome.made.get(rendition.name))
    ]
    return Text("\n").join([*lines, *(Text(problem, style="red") for problem in problems)])
