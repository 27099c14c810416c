"""The command `resize-pipeline resize`: what it checks first, and what it says."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resize_pipeline.commands.console import errors
from resize_pipeline.commands.resize_files import (
    FileResult,
    check_outputs,
    draw_contact_sheet,
    find_files,
    resize_files,
)
from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError, one_line
from resize_pipeline.imaging.contact_sheet import (
    PICTURE_MAX,
    Entry,
    contact_sheet_page,
)
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings

PAGES = (".html", ".htm")
PICTURES = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


@dataclass(slots=True)
class _Report:
    """What is said of each picture, and kept of it for the contact sheet."""

    as_json: bool
    has_sheet: bool
    rendered: int = 0
    rejected: int = 0
    entries: list[Entry] = field(default_factory=list[Entry])

    def add(self, outcome: FileResult) -> None:
        self.rendered += outcome.status == "rendered"
        self.rejected += outcome.status == "rejected"
        name = one_line(str(outcome.source.path))
        made = ", ".join(f"{one.rendition} {one.width}x{one.height}" for one in outcome.outputs)
        text = made if outcome.reason is None else outcome.reason
        line = json.dumps(outcome.as_json()) if self.as_json else f"{outcome.status} {name}: {text}"
        sys.stdout.write(f"{line}\n")
        if self.has_sheet:
            is_rejected = outcome.reason is not None
            self.entries.append(Entry(name, text, is_rejected, outcome.thumbnail))


def run_resize(  # noqa: PLR0913  As many as there are options.
    paths: Sequence[Path],
    out: Path,
    *,
    recursive: bool,
    spec: Path | None,
    allow_transforms: bool,
    as_json: bool,
    sheet: Path | None,
) -> int:
    """Render files, and say of each on standard output what became of it.

    Args:
        paths: files, and with `recursive` folders.
        out: folder with a folder for each bucket.
        recursive: whether to go into folders.
        spec: the spec file, if it is not that of the settings.
        allow_transforms: whether that file may name code to be run.
        as_json: whether to say it as JSON.
        sheet: where to write a contact sheet.

    Returns:
        How many were rejected.

    Raises:
        UserError: something was asked for that can't be done.
    """
    settings = load_settings()
    renditions = _renditions(settings, spec, allow_transforms=allow_transforms)
    found = find_files(paths, recursive=recursive)
    check_outputs(paths, found.files, renditions, out)
    if sheet:
        _check_sheet(sheet, [file.path for file in found.files])
    for link in found.links:
        errors.print(f"{one_line(str(link))}: a link to a folder, not followed")

    report = _Report(as_json, sheet is not None)
    for outcome in found.unreadable:
        report.add(outcome)
    progress = _progress()
    with progress:
        task = progress.add_task("", total=len(found.files))

        def add(outcome: FileResult) -> None:
            report.add(outcome)
            progress.advance(task)

        resize_files(
            found.files,
            renditions,
            out,
            limits=settings.render_limits,
            max_bytes=settings.source_max_bytes,
            has_thumbnails=sheet is not None,
            report=add,
        )
    if sheet:
        _write_sheet(sheet, report, settings.render_limits)
    errors.print(f"{report.rendered} rendered, {report.rejected} rejected; renditions are in {out}")
    return report.rejected


def _renditions(
    settings: Settings, spec: Path | None, *, allow_transforms: bool
) -> list[Rendition]:
    if spec is None and not settings.renditions_file.exists():
        msg = (
            f"{settings.renditions_file}: no such file: name a file of rendition specs with --spec "
            "or RENDITIONS_FILE"
        )
        raise UserError(msg)
    file = spec or settings.renditions_file
    # A file has no object metadata that a spec could read.
    renditions = [one.resolved({}) for one in load_renditions(file, settings.source_bucket)]
    if spec and not allow_transforms and (own := [one for one in renditions if one.transform]):
        msg = (
            f"{spec}: rendition {own[0].name!r} runs code, transform {own[0].transform}: add "
            "--allow-transforms if you trust it"
        )
        raise UserError(msg)
    return renditions


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.completed} rendered or rejected"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
        # The lines go through the bar's terminal only if it is theirs too.
        redirect_stdout=sys.stdout.isatty(),
    )


def _check_sheet(sheet: Path, sources: Sequence[Path]) -> None:
    suffix = sheet.suffix.lower()
    if suffix not in {*PAGES, *PICTURES}:
        msg = f"--contact-sheet {sheet}: must end with one of {', '.join((*PAGES, *PICTURES))}"
        raise UserError(msg)
    if not sheet.parent.is_dir():
        msg = f"--contact-sheet {sheet}: no folder {sheet.parent}"
        raise UserError(msg)
    if sheet.is_dir() or (sheet.exists() and any(sheet.samefile(one) for one in sources)):
        msg = f"--contact-sheet {sheet}: is a folder or one of the pictures"
        raise UserError(msg)


def _write_sheet(sheet: Path, report: _Report, limits: RenderLimits) -> None:
    made = [entry.thumbnail for entry in report.entries if entry.thumbnail is not None]
    picture_format = PICTURES.get(sheet.suffix.lower())
    if picture_format is None:
        data = contact_sheet_page(report.entries).encode()
    elif made:
        data = draw_contact_sheet(made[:PICTURE_MAX], picture_format, limits=limits)
    else:
        errors.print(f"no contact sheet {sheet}: nothing was rendered")
        return
    try:
        sheet.write_bytes(data)
    except OSError as error:
        msg = f"--contact-sheet {sheet}: cannot be written: {error.strerror}"
        raise UserError(msg) from error
    if picture_format and len(made) > PICTURE_MAX:
        errors.print(f"{sheet} shows the first {PICTURE_MAX} of {len(made)}; .html shows all")
