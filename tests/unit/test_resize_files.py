import os
from pathlib import Path

import pytest

from resize_pipeline.commands.resize_files import FoundFiles, SourceFile, check_outputs, find_files
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.spec import Rendition

LARGE = Rendition(name="large", width=100, height=100, bucket="large-bucket", prefix="l/")
SMALL = Rendition(name="small", width=20, height=20, bucket="small-bucket")
SPECS = (LARGE, SMALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pics/b.jpg", "pics/a.txt", "pics/deep/er/c.png", "single.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def problem(paths: list[Path], out: Path) -> str:
    found = find_files(paths, recursive=True)
    with pytest.raises(UserError) as caught:
        check_outputs(paths, found.files, SPECS, out)
    message = str(caught.value)
    assert message.isprintable()
    return message


def keys(found: FoundFiles) -> list[str]:
    return [file.key for file in found.files]


def test_a_file_s_key_is_its_name_and_below_a_folder_its_path(folder: Path) -> None:
    found = find_files([folder / "single.gif", folder / "pics"], recursive=True)
    assert keys(found) == ["single.gif", "a.txt", "b.jpg", "deep/er/c.png"]
    assert found.files[3].path == folder / "pics/deep/er/c.png"
    assert not found.unreadable
    assert not found.links


def test_paths_may_be_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "pics")
    assert keys(find_files([Path()], recursive=True)) == ["a.txt", "b.jpg", "deep/er/c.png"]
    assert keys(find_files([Path("../single.gif")], recursive=False)) == ["single.gif"]


def test_a_file_given_twice_is_one(folder: Path) -> None:
    path = folder / "single.gif"
    assert keys(find_files([path, path], recursive=False)) == ["single.gif"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pics", "is a folder: add --recursive"),
        ("none.jpg", "none.jpg: cannot be read: No such file"),
        ("single.gif/x", "cannot be read: Not a directory"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
        ("e\x1bvil", r"e\x1bvil: cannot be read"),
    ],
)
def test_a_path_that_is_not_a_file_is_refused(folder: Path, name: str, words: str) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UserError) as caught:
        find_files([folder / name], recursive=False)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_links_to_folders_are_reported_and_not_followed(folder: Path) -> None:
    (folder / "pics/deep/up").symlink_to("..")
    (folder / "pics/again.jpg").symlink_to("b.jpg")
    found = find_files([folder / "pics"], recursive=True)
    assert keys(found) == ["a.txt", "again.jpg", "b.jpg", "deep/er/c.png"]
    assert found.links == (folder / "pics/deep/up",)


def test_a_folder_that_can_t_be_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def fail(path: str) -> object:
        if str(path).endswith("er"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    found = find_files([folder / "pics"], recursive=True)
    assert keys(found) == ["a.txt", "b.jpg"]
    [one] = found.unreadable
    assert (one.source.key, one.status) == ("deep/er", "rejected")
    assert one.reason == "cannot be read: Permission denied"


def test_good_outputs_are_none_s_problem(folder: Path) -> None:
    paths = [folder / "pics", folder / "single.gif"]
    for out in (folder / "out", folder, folder / "pics-out"):
        check_outputs(paths, find_files(paths, recursive=True).files, SPECS, out)


@pytest.mark.parametrize("out", ["pics", "pics/out", "pics/deep/../out", "link"])
def test_output_inside_the_input_is_refused(folder: Path, out: str) -> None:
    (folder / "link").symlink_to("pics/deep")
    message = problem([folder / "pics"], folder / out)
    assert "be read as pictures next time" in message
    assert out in message


def test_renditions_of_renditions_are_refused(folder: Path) -> None:
    """The source folder lies below --out, not above it."""
    inside = folder / "out/small-bucket/x.jpg"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"x")
    paths = [folder / "out/small-bucket"]
    assert "read as pictures next time" in problem(paths, folder / "out")
    assert "would be overwritten" in problem([inside], folder / "out")


def test_two_that_would_be_one_are_refused_with_both_names(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/b.jpg").write_bytes(b"x")
    message = problem([folder / "pics", folder / "other"], folder / "out")
    for part in ("pics/b.jpg", "other/b.jpg", "out/large-bucket/l/b.jpg", "--out"):
        assert part in message


def test_a_file_where_another_needs_a_folder_is_refused(folder: Path) -> None:
    (folder / "deep").write_bytes(b"x")
    message = problem([folder / "deep", folder / "pics"], folder / "out")
    assert "would become the file" in message
    assert "deep/er/c.png" in message


def test_out_that_is_a_file_is_refused(folder: Path) -> None:
    assert "single.gif is not a folder" in problem([folder / "pics"], folder / "single.gif")


def test_a_link_to_itself_is_one_file_s_problem(folder: Path) -> None:
    (folder / "pics/self").symlink_to("self")
    paths = [folder / "pics"]
    files = find_files(paths, recursive=True).files
    check_outputs(paths, files, SPECS, folder / "out")
    assert SourceFile(folder / "pics/self", "self") in files
