"""Renders local files exactly as the job renders objects, without any server."""

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from resize_pipeline.commands.writing import write_below
from resize_pipeline.errors import PermanentError, UserError, one_line
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to render.

    Attributes:
        path: path of the file.
        key: the key that it would have in the source bucket: its path below the folder that was
            named, or its name.
    """

    path: Path
    key: str


@dataclass(frozen=True, slots=True)
class RenditionFile:
    """A rendition that was written: name, path, size in pixels, Pillow's format name, bytes."""

    rendition: str
    path: str
    width: int
    height: int
    format: str
    bytes: int


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result of rendering a file.

    Attributes:
        source: the file.
        reason: why it was rejected; None if it was rendered.
        outputs: the renditions that were written.
        thumbnail: a small WebP of the smallest rendition, if one was asked for and can be drawn.
    """

    source: SourceFile
    reason: str | None
    outputs: tuple[RenditionFile, ...] = ()
    thumbnail: bytes | None = None

    @property
    def status(self) -> Literal["rendered", "rejected"]:
        """Whether the file was rendered or rejected."""
        return "rendered" if self.reason is None else "rejected"

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the result's JSON line."""
        return {
            "path": str(self.source.path),
            "status": self.status,
            "reason": self.reason,
            "outputs": [asdict(output) for output in self.outputs],
        }


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files below the paths that were named, unreadable folders, and links to folders."""

    files: tuple[SourceFile, ...]
    unreadable: tuple[FileResult, ...]
    links: tuple[Path, ...]


def find_files(paths: Sequence[Path], *, recursive: bool) -> FoundFiles:
    """Find the files to render: all of them, as content decides what is a picture.

    Args:
        paths: files, and with `recursive` folders.
        recursive: whether to descend into folders. Symbolic links to files are followed, those to
            folders are not.

    Raises:
        UserError: a path does not exist, or is a folder without `recursive`.
    """
    files: dict[SourceFile, None] = {}
    unreadable: list[FileResult] = []
    links: list[Path] = []
    for path in paths:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            msg = f"{_shown(path)}: cannot be read: {error.strerror}"
            raise UserError(msg) from error
        if not is_folder:
            files[SourceFile(path, path.name)] = None
        elif recursive:
            files |= dict.fromkeys(_below(path, unreadable, links))
        else:
            msg = f"{_shown(path)} is a folder: add --recursive to render the files in it"
            raise UserError(msg)
    return FoundFiles(tuple(files), tuple(unreadable), tuple(links))


def _below(folder: Path, unreadable: list[FileResult], links: list[Path]) -> Iterator[SourceFile]:
    def fail(error: OSError) -> None:
        path = Path(error.filename)
        source = SourceFile(path, path.relative_to(folder).as_posix())
        unreadable.append(FileResult(source, f"cannot be read: {error.strerror}"))

    for place, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        links += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
        for name in sorted(names):
            path = Path(place, name)
            yield SourceFile(path, path.relative_to(folder).as_posix())


def check_outputs(
    paths: Sequence[Path], files: Sequence[SourceFile], renditions: Sequence[Rendition], out: Path
) -> None:
    """Check that no rendition overwrites another or a source, or is read as a source next time.

    Args:
        paths: as passed to `find_files`.
        files: the files that it found.
        renditions: what to make.
        out: folder with a folder for each bucket.

    Raises:
        UserError: a rendition would; the message names both files.
    """
    if out.exists() and not out.is_dir():
        msg = f"--out {_shown(out)} is not a folder"
        raise UserError(msg)
    buckets = [_real(out / rendition.bucket) for rendition in renditions]
    for folder, bucket in itertools.product((_real(path) for path in paths), buckets):
        if folder.is_dir() and bucket.is_relative_to(folder):
            msg = (
                f"--out {_shown(out)}: renditions would go to {_shown(bucket)}, inside "
                f"{_shown(folder)}, and be read as pictures next time: choose another folder"
            )
            raise UserError(msg)
    targets: dict[Path, SourceFile] = {}
    for file in files:
        for rendition, bucket in zip(renditions, buckets, strict=True):
            if not rendition.wants(file.key):
                continue
            target = bucket / rendition.key_for(file.key)
            other = targets.setdefault(target, file)
            if other is not file:
                msg = (
                    f"{_shown(other.path)} and {_shown(file.path)} would both become "
                    f"{_shown(target)}: render them with different --out folders"
                )
                raise UserError(msg)
    _check_targets(targets, {_real(file.path): file.path for file in files})


def _check_targets(targets: Mapping[Path, SourceFile], sources: Mapping[Path, Path]) -> None:
    for target, file in targets.items():
        if target in sources:
            msg = (
                f"{_shown(sources[target])} would be overwritten by a rendition of "
                f"{_shown(file.path)}: choose another --out"
            )
            raise UserError(msg)
        for parent in target.parents:
            if parent in targets:
                msg = (
                    f"{_shown(targets[parent].path)} would become the file {_shown(parent)}, and "
                    f"{_shown(file.path)} go into a folder of that name: render them with "
                    "different --out folders"
                )
                raise UserError(msg)


def resize_files(  # noqa: PLR0913  As many as there are choices.
    files: Iterable[SourceFile],
    renditions: Sequence[Rendition],
    out: Path,
    *,
    limits: RenderLimits,
    max_bytes: int,
    has_thumbnails: bool,
    report: Callable[[FileResult], None],
) -> None:
    """Render files exactly as a run of the job does, in child processes with limits.

    Args:
        files: the files that `find_files` found.
        renditions: what to make.
        out: folder with a folder for each bucket.
        limits: limits of each picture.
        max_bytes: a larger file is rejected, SOURCE_MAX_BYTES.
        has_thumbnails: whether to draw thumbnails.
        report: called with the result of each file, in order.

    Raises:
        UserError: a rendition can't be written; the remaining files are not rendered.
    """
    renderer = Renderer(limits)

    def work(file: SourceFile) -> FileResult:
        wanted = [spec for spec in renditions if spec.wants(file.key)]
        if not wanted:
            return FileResult(file, None)
        try:
            rendered = renderer.render(_read(file.path, max_bytes), wanted)
            outputs = [
                _write(out, Path(spec.bucket, spec.key_for(file.key)), made)
                for spec, made in zip(wanted, rendered, strict=True)
            ]
        except PermanentError as error:
            return FileResult(file, str(error))
        thumbnail = _thumbnail(renderer, rendered) if has_thumbnails else None
        return FileResult(file, None, tuple(outputs), thumbnail)

    # One thread more than children, so that files are read and written while all children render.
    pool = ThreadPoolExecutor(renderer.workers + 1)
    try:
        for result in pool.map(work, files):
            report(result)
    except BaseException:
        renderer.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        renderer.close()


def draw_contact_sheet(
    thumbnails: Sequence[bytes], picture_format: str, *, limits: RenderLimits
) -> bytes:
    """Draw a sheet of thumbnails in a child process.

    Args:
        thumbnails: thumbnails of `FileResult`s; the first ones are shown.
        picture_format: Pillow's name of the sheet's format.
        limits: limits of drawing it.

    Raises:
        UserError: it can't be drawn within the limits.
    """
    renderer = Renderer(limits, workers=1)
    try:
        sheet = renderer.contact_sheet(thumbnails, picture_format=picture_format)
    except PermanentError as error:
        msg = f"no contact sheet: {error}"
        raise UserError(msg) from error
    finally:
        renderer.close()
    if sheet is None:
        msg = "no contact sheet: none of the thumbnails can be read"
        raise UserError(msg)
    return sheet


def _thumbnail(renderer: Renderer, rendered: Sequence[Rendered]) -> bytes | None:
    smallest = min(rendered, key=lambda made: made.width * made.height)
    try:
        return renderer.thumbnail(smallest.data)
    except PermanentError:
        return None  # A transform may have made it larger than OUTPUT_MAX_PIXELS.


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        # Non-blocking, so that a pipe without a writer does not hang.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                msg = "not a regular file"
                raise PermanentError(msg)
            data = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise PermanentError(msg) from error
    size = max(status.st_size, len(data))
    if size > max_bytes:
        msg = f"{size} bytes, more than SOURCE_MAX_BYTES={max_bytes}"
        raise PermanentError(msg)
    return data


def _write(out: Path, below: Path, made: Rendered) -> RenditionFile:
    path = out / below
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_below(out, below.parts, made.data)
    except OSError as error:
        msg = f"{_shown(path)} cannot be written: {one_line(str(error.strerror))}"
        if error.errno == errno.ENAMETOOLONG:
            raise PermanentError(msg) from error
        raise UserError(msg) from error
    size = len(made.data)
    return RenditionFile(made.rendition, str(path), made.width, made.height, made.format, size)


def _real(path: Path) -> Path:
    # `Path.resolve` raises for a link to itself, but one such file must not fail the command.
    return Path(os.path.realpath(path))


def _shown(path: object) -> str:
    return one_line(str(path))
