"""`resize-pipeline demo` on a running pipeline, and the outcomes that make it fail."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from resize_pipeline.demo.outcomes import Made, Outcome
from resize_pipeline.demo.samples import Sample, draw_samples
from resize_pipeline.renditions.spec import Rendition
from tests.support.project import Project
from tests.support.standing import instance_of

SMALL = Rendition(name="small", width=100, height=100, bucket="small")
LARGE = Rendition(name="large", width=1000, height=1000, bucket="large")
RENDITIONS = (SMALL, LARGE)

PICTURE = Sample("a.jpg", b"", "image/jpeg", (400, 200))
NO_PICTURE = Sample("rose.jpg", b"a\n", "image/jpeg", None)
MADE = {"small": Made((100, 50), 1), "large": Made((400, 200), 1)}


@pytest.mark.integration
def test_the_demonstration_shows_what_became_of_each_object(pipeline: Project):
    done = pipeline.run("resize-pipeline", "demo", timeout_s=400)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = table_rows(done.stdout)
    samples = {sample.key: sample for sample in draw_samples()}
    assert rows.keys() == samples.keys()
    events = {key: event for key, (event, *_) in rows.items()}
    assert events.pop("multipart.png") == "Multipart"
    assert events.pop("copied.webp") == "Copy"
    assert set(events.values()) == {"Put"}
    for _, offset, run, *_ in rows.values():
        assert re.fullmatch(r"\d+:\d+", offset)
        assert re.fullmatch(r"[0-9a-f]{8}", run)
    with instance_of(pipeline) as instance:
        runs = {run.run_id[:8] for run in instance.get_runs(limit=100)}
    assert {run for _, _, run, *_ in rows.values()} <= runs
    # Upright, and not enlarged.
    assert sizes(rows["held upright.JPG"]) == ["960x1280", "480x640", "120x160"]
    assert sizes(rows["small.jpg"]) == ["120x90", "120x90", "120x90"]
    reason = " ".join(rows.pop("rose.jpg")[3:])
    assert reason.startswith("rejected: not a picture that can be decoded")
    assert {len(sizes(row)) for row in rows.values()} == {3}
    assert f"{len(samples)} of {len(samples)} objects ended as expected" in done.stdout
    assert "rose.jpg left a dead letter: " in done.stdout
    assert pipeline.ui_url in done.stdout


@pytest.mark.integration
def test_a_demonstration_fails_when_the_pipeline_makes_something_else(
    pipeline: Project, tmp_path: Path
):
    specs = yaml.safe_load(Path(pipeline.folder, "renditions.yaml").read_text())
    specs["renditions"]["large"]["width"] = 1000
    others = tmp_path / "others.yaml"
    others.write_text(yaml.safe_dump(specs))

    done = replace(pipeline, settings={"RENDITIONS_FILE": str(others)}).run(
        "resize-pipeline", "demo", timeout_s=400
    )

    assert done.returncode == 1, done.stdout + done.stderr
    rows = table_rows(done.stdout)
    wrong = "large is (1280, 960), not (1000, 750)"
    assert wrong in " ".join(rows["deeper/path/rose.jpg"][3:])
    # It is as expected all the same, because it is smaller than both.
    assert len(rows["small.jpg"][3:]) == 3


def test_all_is_well_when_every_rendition_has_its_size():
    assert Outcome(PICTURE, "a.jpg", "e", run_id="r", made=MADE).problems(RENDITIONS) == []


@pytest.mark.parametrize(
    ("made", "problems"),
    [
        ({}, ["small is missing", "large is missing"]),
        ({"small": MADE["small"]}, ["large is missing"]),
        # As from a renderer that ignores the orientation.
        (MADE | {"small": Made((50, 100), 1)}, ["small is (50, 100), not (100, 50)"]),
        # As from a renderer that enlarges.
        (MADE | {"large": Made((1000, 500), 1)}, ["large is (1000, 500), not (400, 200)"]),
    ],
)
def test_a_rendition_that_is_missing_or_has_another_size_is_a_problem(
    made: dict[str, Made], problems: list[str]
):
    assert Outcome(PICTURE, "a.jpg", "e", run_id="r", made=made).problems(RENDITIONS) == problems


def test_a_picture_that_was_rejected_is_a_problem():
    outcome = Outcome(PICTURE, "a.jpg", "e", run_id="r", reason="too large", made=MADE)

    assert outcome.problems(RENDITIONS) == ["too large"]


def test_what_is_no_picture_has_to_be_rejected():
    assert Outcome(NO_PICTURE, "rose.jpg", "e", run_id="r").problems(RENDITIONS)
    assert not Outcome(NO_PICTURE, "rose.jpg", "e", run_id="r", reason="no").problems(RENDITIONS)


def sizes(row: list[str]) -> list[str]:
    """Return the sizes in a row's outcome, in the order of the renditions."""
    return [found[1] for line in row[3:] if (found := re.match(r"\w+ (\d+x\d+), ", line))]


def table_rows(output: str) -> dict[str, list[str]]:
    """Parse the table: for each object, its event, offset, run and the lines of its outcome."""
    lines = iter(output.splitlines())
    next(line for line in lines if line.startswith("object "))
    rows: dict[str, list[str]] = {}
    for line in lines:
        if "ended as expected" in line:
            return rows
        cells = re.split(r"\s{2,}", line.strip())
        if not line.startswith(" "):
            key, *rest = cells
            rows[key] = rest
            continue
        # A long event is folded; the last cell is of the outcome.
        *event, outcome = cells
        rows[key][0] += "".join(event)
        rows[key].append(outcome)
    raise AssertionError(output)
