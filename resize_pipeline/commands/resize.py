"""Runs `resize-pipeline resize`: checks its options, renders the files and reports on each."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resize_pipeline.commands.resize_files import (
    FileResult,
    check_outputs,
    draw_contact_sheet,
    find_files,
    resize_files,
)
from resize_pipeline.commands.writing import write_below
from resize_pipeline.defaults import DEFAULTS
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
from resize_pipeline.terminal import errors

PAGES = (".html", ".htm")
PICTURES = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}


@dataclass(slots=True)
class _Report:
    """Prints the result of each file, counts them and collects entries for the contact sheet."""

    as_json: bool
    has_sheet: bool
    rendered: int = 0
    rejected: int = 0
    entries: list[Entry] = field(default_factory=list[Entry])

    def add(self, result: FileResult) -> None:
        self.rendered += result.status == "rendered"
        self.rejected += result.status == "rejected"
        name = one_line(str(result.source.path))
        made = ", ".join(f"{one.rendition} {one.width}x{one.height}" for one in result.outputs)
        made = made or "no rendition is made of this key"
        text = made if result.reason is None else result.reason
        line = json.dumps(result.as_json()) if self.as_json else f"{result.status} {name}: {text}"
        sys.stdout.write(f"{line}\n")
        if self.has_sheet:
            is_rejected = result.reason is not None
            self.entries.append(Entry(name, text, is_rejected, result.thumbnail))


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
    """Render files, and print the result of each on standard output.

    Args:
        paths: files, and with `recursive` folders.
        out: folder with a folder for each bucket.
        recursive: whether to descend into folders.
        spec: the spec file, if other than the setting's.
        allow_transforms: whether that file may name code to run.
        as_json: whether to print JSON lines.
        sheet: where to write a contact sheet.

    Returns:
        The number of rejected files.

    Raises:
        UserError: an option, a path or the spec file is wrong, or a file can't be written.
    """
    settings = load_settings()
    renditions = _renditions(settings, spec, allow_transforms=allow_transforms)
    found = find_files(paths, recursive=recursive)
    check_outputs(paths, found.files, renditions, out)
    if sheet:
        _check_sheet(sheet, [file.path for file in found.files])
    for link in found.links:
        errors.print(f"{one_line(str(link))}: link to a folder, not followed")

    report = _Report(as_json, sheet is not None)
    for result in found.unreadable:
        report.add(result)
    progress = _progress()
    with progress:
        task = progress.add_task("", total=len(found.files))

        def add(result: FileResult) -> None:
            report.add(result)
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
    file = spec or settings.renditions_file
    if spec is None and not file.exists():
        if "renditions_file" in settings.model_fields_set:
            msg = f"{file}: no such file: name a spec file with --spec or RENDITIONS_FILE"
            raise UserError(msg)
        file = DEFAULTS / file
        errors.print(f"no renditions.yaml in this folder: using {file}; --spec names another")
    # A local file has no object metadata for a spec to read.
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
        # Redirect the lines past the bar only if both go to the same terminal.
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
        reason = "no rendition can be shown" if report.rendered else "nothing was rendered"
        errors.print(f"no contact sheet {sheet}: {reason}")
        return
    try:
        write_below(sheet.parent, [sheet.name], data)
    except OSError as error:
        msg = f"--contact-sheet {sheet}: cannot be written: {error.strerror}"
        raise UserError(msg) from error
    if picture_format and len(made) > PICTURE_MAX:
        errors.print(f"{sheet} shows the first {PICTURE_MAX} of {len(made)}; .html shows all")
