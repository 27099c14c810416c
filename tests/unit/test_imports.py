"""The clean cut: what speaks to Kafka knows nothing of pictures, nor of MinIO."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "resize_pipeline"
KAFKA_SIDE = ["resources.kafka", "offsets", "dead_letters"]
PICTURES = ["PIL", "minio", "resize_pipeline.imaging", "resize_pipeline.renditions"]
CLIENTS = {"kafka": "resources/kafka.py", "minio": "resources/minio.py"}


def file_of(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imports(file: Path) -> set[str]:
    """Whatever a file imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative"
            assert node.module
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def reaches(module: str) -> set[str]:
    """Whatever is imported by importing a module, through others of this package too."""
    found: set[str] = set()
    waiting = {f"resize_pipeline.{module}"}
    while waiting:
        one = waiting.pop()
        found.add(one)
        file = file_of(one) if one.startswith("resize_pipeline") else None
        if file:
            waiting |= imports(file) - found
    return found


@pytest.mark.parametrize("module", KAFKA_SIDE)
def test_kafka_s_side_knows_nothing_of_pictures(module: str) -> None:
    reached = reaches(module)
    assert "resize_pipeline.errors" in reached, "the graph is walked"
    for name in PICTURES:
        assert not [one for one in reached if one == name or one.startswith(f"{name}.")]


def test_the_walk_finds_what_is_imported_through_others() -> None:
    assert {"PIL", "resize_pipeline.imaging", "minio"} <= reaches("reconciliation") | reaches(
        "converge"
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_only_a_resource_imports_its_client(client: str) -> None:
    """And what provisions or runs the servers, which is no part of a run."""
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(one.split(".")[0] == client for one in imports(file))
    }
    assert CLIENTS[client] in users
    parts = {name.split("/")[0] for name in users - {CLIENTS[client]}}
    assert parts <= {"provisioning", "local", "demo"}


def test_decoders_are_reached_by_children_only() -> None:
    """The process that holds the secrets decodes nothing of strangers but through its renderer."""
    for module in ("converge", "planning", "reconciliation", "resources.renderer"):
        file = file_of(f"resize_pipeline.{module}")
        assert file
        assert "resize_pipeline.imaging.render" not in imports(file)
