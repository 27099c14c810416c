"""The architecture, as rules about who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "resize_pipeline"
FILES = sorted(PACKAGE.rglob("*.py"))

PICTURES = ("PIL", "resize_pipeline.imaging", "resize_pipeline.renditions")
MINIO = ("minio", "resize_pipeline.resources.minio")
DAGSTER = ("dagster", "dagster_celery", "dagster_graphql", "dagster_postgres")
# What opens files, sockets or processes.
IO = ("http", "pathlib", "shutil", "socket", "subprocess", "tempfile", "urllib.request")
# The part of imaging/ that runs processes, the program that it runs, and what confines that.
PROCESSES = (
    "imaging/child.py",
    "imaging/child_process.py",
    "imaging/renderer.py",
    "imaging/sandbox/",
)
FILE_MAX_LINES = 450
FUNCTION_MAX_LINES = 60


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def file_of(module: str) -> Path | None:
    path = REPOSITORY.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imports(file: Path) -> set[str]:
    """Whatever a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative"
            assert node.module
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def reached(module: str) -> set[str]:
    """Whatever importing a module imports, through others of this package too."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        one = waiting.pop()
        found.add(one)
        file = file_of(one) if one.startswith("resize_pipeline") else None
        if file:
            waiting |= imports(file) - found
    return found


def among(modules: Iterable[str], packages: Iterable[str]) -> set[str]:
    """Those modules that are one of the packages or lie in one."""
    return {one for one in modules for package in packages if f"{one}.".startswith(f"{package}.")}


def inside(folder: str) -> list[Path]:
    return [file for file in FILES if folder in file.relative_to(PACKAGE).as_posix().split("/")[:1]]


def names(files: Iterable[Path]) -> list[str]:
    return [file.relative_to(PACKAGE).as_posix() for file in files]


@pytest.mark.parametrize("file", inside("kafka"), ids=names(inside("kafka")))
def test_kafka_knows_no_pictures_no_minio_and_no_dagster(file: Path) -> None:
    found = reached(module_of(file))
    assert not among(found, (*PICTURES, *MINIO, *DAGSTER))


@pytest.mark.parametrize("file", inside("imaging"), ids=names(inside("imaging")))
def test_imaging_knows_no_dagster_and_no_server(file: Path) -> None:
    found = reached(module_of(file))
    assert not among(found, (*DAGSTER, *MINIO, "kafka", "resize_pipeline.kafka"))


def test_imaging_does_no_io() -> None:
    files = [file for file in inside("imaging") if not names([file])[0].startswith(PROCESSES)]
    assert len(files) > 5
    assert not {name for file in files for name in among(imports(file), IO)}


def test_the_walk_finds_what_is_imported_through_others() -> None:
    found = reached("resize_pipeline.definitions")
    assert {"minio", "kafka", "dagster", "resize_pipeline.renditions.spec"} <= found
    assert "PIL" in reached("resize_pipeline.imaging.child")


def test_only_resources_and_provisioning_import_minio() -> None:
    users = {name.split("/")[0] for name in names(f for f in FILES if among(imports(f), ["minio"]))}
    assert users == {"resources", "provisioning"}


def test_only_provisioning_and_kafka_itself_import_kafka_python() -> None:
    users = {name.split("/")[0] for name in names(f for f in FILES if among(imports(f), ["kafka"]))}
    assert users == {"kafka", "provisioning"}


def test_only_the_command_line_and_the_demo_import_the_local_stack() -> None:
    users = {
        name.split("/")[0]
        for name in names(f for f in FILES if among(imports(f), ["resize_pipeline.local"]))
    }
    assert users <= {"cli.py", "demo", "local"}


def test_decoders_are_reached_by_children_only() -> None:
    """The process that holds the secrets decodes strangers' pictures in its children alone."""
    for module in (
        "definitions",
        "resources.renderer",
        "imaging.renderer",
        "commands.resize",
        "commands.status",
    ):
        assert not among(reached(f"resize_pipeline.{module}"), ["PIL"])


def test_letters_are_listed_without_dagster() -> None:
    """Which takes more than a second to import."""
    program = "import sys, resize_pipeline.commands.dead_letters; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert "kafka" in loaded
    assert not among(loaded, DAGSTER)


def test_only_one_function_opens_a_picture() -> None:
    """`open_picture`, which children call, has an allow-list of decoders and a limit of pixels."""
    calls = {
        (name, node.attr)
        for file, name in zip(FILES, names(FILES), strict=True)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("Image", "open"), ("ImageFile", "Parser")}
    }
    assert calls == {("imaging/decoding.py", "open")}


def test_packages_say_what_belongs_there() -> None:
    for file in FILES:
        if file.name == "__init__.py":
            docstring = ast.get_docstring(ast.parse(file.read_text()))
            assert docstring, file


def test_folders_import_each_other_one_way_only() -> None:
    """No circle of folders, wherever the imports stand."""
    folders = {name.split("/")[0].removesuffix(".py") for name in names(FILES)}
    arrows: dict[str, set[str]] = {folder: set() for folder in folders}
    for file in FILES:
        folder = names([file])[0].split("/")[0].removesuffix(".py")
        for one in among(imports(file), ["resize_pipeline"]):
            target = one.split(".")[1] if "." in one else "__init__"
            if target in folders and target != folder:
                arrows[folder].add(target)
    floors: list[set[str]] = []
    left = set(folders)
    while left:
        ground = {one for one in left if not arrows[one] & left}
        assert ground, f"a circle among {sorted(left)}"
        floors.append(ground)
        left -= ground


@pytest.mark.parametrize("file", FILES, ids=names(FILES))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= FILE_MAX_LINES
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_MAX_LINES
    ]
    assert not long
