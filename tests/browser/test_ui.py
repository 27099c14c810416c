"""What a user sees of the pipeline in Dagster's UI, in a real Chromium.

The pages are kept as pictures in the folder SCREENSHOTS_DIR, if it is set.
"""

import datetime as dt
import io
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from resize_pipeline.defs.jobs import run_config
from resize_pipeline.demo.samples import draw_rose, draw_sunset
from resize_pipeline.renditions.file import load_renditions
from tests.browser.chromium import ARGUMENTS, TIMEOUT_MS, find_chromium, page_of
from tests.support.names import NAMES
from tests.support.project import Project
from tests.support.waiting import wait_until

CHROMIUM = find_chromium()
SOURCE = "images"
PREFIX = "browser/"
SIZES = [(900, 600), (600, 900), (750, 750), (1000, 500), (500, 800), (800, 640)]
STEPS = ("plan", "download", "resize", "upload", "publish")
BUCKET = "processed-thumbnail"
HOUR_FORMAT = "%Y-%m-%d-%H:00"
# Less is hardly seen on a bar of all hours since the first.
BACKFILLED_HOURS = 72
SENSOR_PAGE = "/locations/resize_pipeline/sensors/minio_events_sensor"
RENDERED_TIMEOUT_S = 180.0
RUN_TIMEOUT_MS = 180_000

COUNT_COLOURS = """canvas => new Set(new Uint32Array(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer
)).size"""

# At collection, so that no pipeline is started for nothing.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium found: install Debian's chromium or set CHROMIUM_BIN; "
        "the UI was NOT tested",
    ),
]


@dataclass(frozen=True)
class Run:
    """The sensor's last run that made renditions of this test's pictures."""

    run_id: str
    partition: str

    @property
    def short_id(self) -> str:
        return self.run_id.split("-")[0]


@pytest.fixture(scope="module")
def run(pipeline: Project) -> Run:
    pictures: dict[str, bytes] = {}
    for width, height in SIZES:
        for name, draw in (("rose", draw_rose), ("sunset", draw_sunset)):
            file = io.BytesIO()
            draw(width, height).save(file, "JPEG", quality=90)
            pictures[f"{PREFIX}{name} {width}x{height}.jpg"] = file.getvalue()
    client = pipeline.administrator()
    started = time.time()
    for key, data in pictures.items():
        client.put_object(SOURCE, key, io.BytesIO(data), len(data), content_type="image/jpeg")

    def missing() -> list[str]:
        return [
            f"{rendition.bucket}/{rendition.key_for(key)}"
            for rendition in load_renditions(pipeline.folder / "renditions.yaml", SOURCE)
            for key in pictures
            if not any(client.list_objects(rendition.bucket, rendition.key_for(key)))
        ]

    wait_until(lambda: not missing(), RENDERED_TIMEOUT_S, "the renditions")
    return wait_until(
        lambda: _last_run(pipeline.ui_url, started), RENDERED_TIMEOUT_S, "the end of the run"
    )


def _last_run(url: str, created_after: float) -> Run | None:
    query = """query($after: Float, $sensor: String!) {
      runsOrError(
        filter: {createdAfter: $after, tags: [{key: "dagster/sensor_name", value: $sensor}]}
      ) { ... on Runs { results { runId status tags { key value } } } }
    }"""
    variables = {"after": created_after, "sensor": "minio_events_sensor"}
    runs = _ask(url, query, variables)["runsOrError"]["results"]
    assert "FAILURE" not in [run["status"] for run in runs]
    if not runs or any(run["status"] != "SUCCESS" for run in runs):
        return None
    tags = {tag["key"]: tag["value"] for tag in runs[0]["tags"]}
    return Run(runs[0]["runId"], tags["dagster/partition"])


def _ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310  Its address is ours.
        f"{url}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return json.load(response)["data"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=TIMEOUT_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(run: Run, browser: Browser, pipeline: Project) -> Iterator[Page]:  # noqa: ARG001
    with page_of(browser, pipeline.ui_url) as page:
        yield page


@pytest.fixture
def screenshot(page: Page, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], None]:
    """Give what keeps the page as a picture of a name."""
    named = os.environ.get("SCREENSHOTS_DIR")
    folder = request.config.invocation_params.dir / named if named else tmp_path

    def take(name: str) -> None:
        page.mouse.move(1, 1)  # Nothing is highlighted below the pointer.
        expect(page.get_by_text("Loading")).to_have_count(0)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return take


def _row(page: Page, heading: str) -> Locator:
    """Find the row of a table whose first cell is `heading`."""
    return page.get_by_role("row").filter(
        has=page.get_by_role("cell", name=heading, exact=True).first
    )


def test_asset_graph_shows_every_asset_with_its_source_and_description(page, pipeline, screenshot):
    page.goto("/locations/resize_pipeline/asset-groups/images/lineage")
    nodes = page.locator("foreignObject")
    expect(nodes).to_have_count(4)
    for name in ("raw_images", "large", "medium", "thumbnail"):
        title = page.locator(f"[data-tooltip='{name}']")
        expect(title).to_be_in_viewport()
        node = nodes.filter(has=title)
        # Each has its event: a materialization, and the observation of the source.
        expect(node).to_contain_text(re.compile(r"Latest event.*ago"))
    expect(page.locator("svg path[marker-end]")).to_have_count(3)
    page.get_by_role("img", name="zoom_out").click()  # The first one is cut off otherwise.
    screenshot("asset-graph")

    page.locator("[data-tooltip='raw_images']").click()
    source = page.get_by_text("Images in the bucket")
    expect(source).to_contain_text(f"{SOURCE}, partitioned by the time")
    for rendition in load_renditions(pipeline.folder / "renditions.yaml", SOURCE):
        page.goto(f"/locations/resize_pipeline/asset-groups/images/lineage/{rendition.name}")
        size = f"{rendition.width} x {rendition.height}"
        described = page.get_by_text(
            f"Every image resized with fit {rendition.fit} to {size} pixels"
        )
        expect(described).to_contain_text(f"s3://{rendition.bucket}/KEY")
    screenshot("asset-description")


def test_run_shows_each_step(page, run, screenshot):
    page.goto(f"/runs/{run.run_id}")
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"Launched by\s+minio_events_sensor"))).to_be_visible()
    expect(page.get_by_text("Errored (0)")).to_be_visible()
    # The pictures are one batch. Whether the list is unfolded belongs to the heading with its
    # number, so the click has to wait for the last one.
    heading = page.get_by_text(f"Succeeded ({len(STEPS)})")
    heading.click()
    succeeded = heading.locator("xpath=../..")
    for step in STEPS:
        succeeded.get_by_text(f"renditions.{step}").first.scroll_into_view_if_needed()
    screenshot("run")


def test_asset_shows_metadata_and_contact_sheet(page, run, screenshot):
    page.goto("/assets/thumbnail")
    expect(
        page.get_by_text("Every image resized with fit inside to 160 x 160 pixels")
    ).to_be_visible()
    page.get_by_role("button", name="3 sensors").click()
    expect(page.get_by_role("link", name="minio_events_sensor")).to_be_visible()
    screenshot("asset")

    page.goto(f"/assets/thumbnail?view=events&partition={run.partition}")
    event = f"Partition {run.partition} materialized in run {run.short_id}"
    expect(page.get_by_text(event)).to_be_visible()
    expect(_row(page, "images")).to_contain_text(re.compile("[1-9]"))
    expect(_row(page, "rejected")).to_contain_text("0")
    expect(_row(page, "uri")).to_contain_text("s3://processed-thumbnail/")
    screenshot("asset-events")

    _row(page, "contact sheet").get_by_text("Show Markdown").click()
    sheet = page.get_by_role("dialog").get_by_role("img", name="contact sheet")
    expect(sheet).to_be_visible()
    expect(sheet).to_have_attribute("src", re.compile("^data:image/webp;base64,"))
    expect(sheet).to_have_js_property("complete", value=True)
    # 0 is what an <img> has that can't be decoded.
    assert sheet.evaluate("image => image.naturalWidth") > 100
    screenshot("contact-sheet")


def test_sensor_is_on_and_ticks(page, run, screenshot):
    page.goto(SENSOR_PAGE)
    expect(_row(page, "Running").get_by_role("checkbox")).to_be_checked()
    expect(_row(page, "Cursor")).to_contain_text('"topic":"minio-events"')
    ticks = page.get_by_role("row").filter(has_text="View logs")
    expect(ticks.filter(has_text="requested").first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True)).to_have_count(0)
    screenshot("sensor")

    page.get_by_role("button", name="Runs", exact=True).click()
    expect(page.get_by_role("link", name=run.short_id)).to_be_visible()
    screenshot("sensor-runs")


def test_asset_plots_its_numbers_by_partition(page, screenshot):
    page.goto("/assets/thumbnail")
    page.get_by_role("button", name="Plots").click()
    for name in ("images", "bytes saved"):
        title = page.get_by_text(name, exact=True)
        plot = title.locator("xpath=../..").locator("canvas")
        plot.scroll_into_view_if_needed()
        expect(plot).to_be_visible()
        assert plot.evaluate(COUNT_COLOURS) > 2, name  # Of an empty one it is 1.
    screenshot("asset-plots")


def test_failed_check_names_the_missing_key_which_the_launchpad_makes_again(
    page, pipeline, screenshot
):
    key = f"{PREFIX}rose 500x800.jpg"
    client = pipeline.administrator()
    client.remove_object(BUCKET, key)
    hour = client.stat_object(SOURCE, key).last_modified.strftime(HOUR_FORMAT)
    query = """mutation($job: String!, $hour: String!) {
      launchRun(executionParams: {
        selector: {
          repositoryLocationName: "resize_pipeline", repositoryName: "__repository__", jobName: $job
        }
        mode: "default"
        executionMetadata: {tags: [{key: "dagster/partition", value: $hour}]}
      }) { ... on LaunchRunSuccess { run { runId } } }
    }"""
    answer = _ask(pipeline.ui_url, query, {"job": NAMES.checks_job, "hour": hour})
    page.goto(f"/runs/{answer['launchRun']['run']['runId']}")
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN_TIMEOUT_MS)

    page.goto("/assets/thumbnail?view=checks")
    expect(page.get_by_text("Failed", exact=True)).to_have_count(2)  # In the list and beside it.
    expect(_row(page, "lacking")).to_contain_text("1")
    expect(_row(page, "first keys").get_by_role("cell", name=key, exact=True)).to_be_visible()
    screenshot("failed-check")

    page.goto(f"/locations/resize_pipeline/jobs/{NAMES.job}")
    # The job has no Launchpad of its own: its config is that of its assets.
    page.get_by_role("button", name="arrow_drop_down").click()
    page.get_by_role("menuitem", name="Open launchpad").click()
    dialog = page.get_by_role("dialog").filter(has_text="Launchpad")
    editor = dialog.locator(".CodeMirror").first
    expect(editor).to_contain_text("objects: []")
    screenshot("launchpad-defaults")
    dialog.get_by_placeholder("Partition").fill(hour)
    page.get_by_role("menuitem", name=hour).click()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps(run_config(NAMES, objects=[key]), indent=2))
    expect(dialog.get_by_text(f"partition: {hour}")).to_be_visible()
    screenshot("launchpad")
    dialog.get_by_role("button", name="Materialize").click()
    page.wait_for_url(re.compile("/runs/"))
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN_TIMEOUT_MS)
    screenshot("launchpad-run")
    assert client.stat_object(BUCKET, key).size > 0


def test_backfill_fills_the_partition_bar(page, run, screenshot):
    end = dt.datetime.strptime(run.partition, HOUR_FORMAT)  # noqa: DTZ007
    first, last = (
        (end - dt.timedelta(hours=hours)).strftime(HOUR_FORMAT) for hours in (BACKFILLED_HOURS, 1)
    )
    hours = f"[{first}...{last}]"
    page.goto("/assets/thumbnail?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").first.fill(hours)
    dialog.get_by_role("textbox").first.press("Enter")
    expect(dialog.get_by_text(f"{BACKFILLED_HOURS} partitions")).to_be_visible()
    screenshot("backfill-dialog")
    dialog.get_by_role("button", name="Launch backfill").click()
    page.get_by_text("View", exact=True).click()
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=RUN_TIMEOUT_MS)

    page.goto("/assets/thumbnail?view=partitions")
    selection = page.get_by_placeholder("ex: ")
    selection.fill(hours)
    selection.press("Enter")
    expect(page.get_by_text(f"{BACKFILLED_HOURS} Partitions Selected")).to_be_visible()
    expect(page.get_by_text(f"Materialized ({BACKFILLED_HOURS})")).to_be_visible()
    expect(page.get_by_text("Missing (0)")).to_be_visible()
    filled = page.locator("[class*='PartitionStatusBar_colorSpan'][style*='accent-green']")
    assert filled.evaluate_all("spans => Math.max(...spans.map(span => span.clientWidth))") > 5
    screenshot("partitions")
