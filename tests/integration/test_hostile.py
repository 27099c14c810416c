"""Hostile pictures in real children: each is rendered or rejected, and none does harm."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings.base import MIB
from tests.support import hostile
from tests.support.children import rendering_children
from tests.support.pictures import decoded

MUTATIONS = 1500
PIXELS = 10**7
LIMITS = RenderLimits(
    timeout_s=60,
    memory_bytes=512 * MIB,
    source_pixels=PIXELS,
    output_pixels=PIXELS,
    pixels_at_once=PIXELS,
)
SPECS = (
    Rendition(name="large", width=80, height=80, bucket="large-bucket"),
    Rendition(name="small", width=20, height=20, bucket="small-bucket"),
)
# A cut leaves the first of several pictures intact in these, and that is the one rendered.
SEVERAL = re.compile(r"(animated|several|pages)\.")


@dataclass(frozen=True)
class Outcome:
    reason: str | None
    made: list[Rendered]
    seconds: float


@dataclass(frozen=True)
class Harm:
    """What the whole corpus did to the children: the ones before and after, and their memory."""

    before: set[int]
    after: set[int]
    peaks: list[int]


def corpus() -> Iterator[tuple[str, bytes]]:
    yield from hostile.seeds().items()
    yield from chain.from_iterable(map(hostile.truncated, hostile.seeds()))
    yield from hostile.claims()
    yield from hostile.bombs(PIXELS)
    yield from hostile.hidden_bombs()
    yield from hostile.not_pictures()
    yield from hostile.wrong_extensions()
    yield from hostile.many_frames(2000)
    yield from hostile.mutations(MUTATIONS, seed=5)


@pytest.fixture(scope="module")
def run() -> Iterator[tuple[dict[str, Outcome], Harm]]:
    """Render the whole corpus once, with two children that live until the end."""
    renderer = Renderer(LIMITS, workers=2)

    def render(item: tuple[str, bytes]) -> tuple[str, Outcome]:
        name, data = item
        started = time.monotonic()
        try:
            made, reason = renderer.render(data, SPECS), None
        except PermanentError as error:
            made, reason = [], str(error)
        return name, Outcome(reason, made, time.monotonic() - started)

    try:
        before = {child.pid for child in rendering_children()}
        with ThreadPoolExecutor(2) as pool:
            outcomes = dict(pool.map(render, corpus()))
        children = rendering_children()
        harm = Harm(before, {child.pid for child in children}, [peak(one.pid) for one in children])
        yield outcomes, harm
    finally:
        renderer.close()


@pytest.fixture
def outcomes(run: tuple[dict[str, Outcome], Harm]) -> dict[str, Outcome]:
    return run[0]


def peak(pid: int) -> int:
    """Return the peak address space of a process in bytes; it used less of it."""
    status = Path(f"/proc/{pid}/status").read_text()
    [kilobytes] = re.findall(r"^VmPeak:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


def test_all_are_there(outcomes: dict[str, Outcome]) -> None:
    assert len(outcomes) > MUTATIONS + 350, "and no name twice"
    assert len([name for name in outcomes if "-percent-of-" in name]) == 9 * len(hostile.seeds())


def test_good_ones_are_rendered(outcomes: dict[str, Outcome]) -> None:
    assert {name: outcomes[name].reason for name in hostile.seeds()} == dict.fromkeys(
        hostile.seeds()
    )
    formats = {one.format for name in hostile.seeds() for one in outcomes[name].made}
    assert formats == set(hostile.EXTENSIONS)


def test_the_process_never_dies(run: tuple[dict[str, Outcome], Harm]) -> None:
    outcomes, harm = run
    assert not [name for name, one in outcomes.items() if "ended with exit" in (one.reason or "")]
    assert harm.after == harm.before
    assert len(harm.after) == 2


def test_memory_stays_under_the_limit(run: tuple[dict[str, Outcome], Harm]) -> None:
    _, harm = run
    assert harm.peaks
    assert max(harm.peaks) <= LIMITS.memory_bytes


def test_none_takes_longer_than_its_limit(outcomes: dict[str, Outcome]) -> None:
    """The limit does not include waiting for a child or for a turn to decode."""
    assert not [name for name, one in outcomes.items() if "RENDER_TIMEOUT_S" in (one.reason or "")]
    assert max(one.seconds for one in outcomes.values()) < 2 * LIMITS.timeout_s


def test_reasons_are_one_short_printable_line(outcomes: dict[str, Outcome]) -> None:
    reasons = [one.reason for one in outcomes.values() if one.reason is not None]
    assert len(set(reasons)) > 50
    assert not [reason for reason in reasons if not reason.isprintable() or len(reason) > 600]
    assert not [reason for reason in reasons if not reason.strip()]
    nobody_thought_of = [reason for reason in reasons if reason.startswith("can't be rendered")]
    assert not nobody_thought_of


def test_what_was_rendered_is_a_picture(outcomes: dict[str, Outcome]) -> None:
    rendered = {name: one.made for name, one in outcomes.items() if one.reason is None}
    assert len(rendered) > 200
    for name, made in rendered.items():
        assert [one.rendition for one in made] == ["large", "small"], name
        for one, spec in zip(made, SPECS, strict=True):
            image = decoded(one.data)
            assert image.size == (one.width, one.height), name
            assert max(image.size) <= spec.width, name


def test_truncated_ones_are_refused(outcomes: dict[str, Outcome]) -> None:
    cut = {name: one for name, one in outcomes.items() if "-percent-of-" in name}
    assert not [
        name for name, one in cut.items() if one.reason is None and not SEVERAL.search(name)
    ]
    reasons = [one.reason for one in cut.values() if one.reason is not None]
    assert not [reason for reason in reasons if "not a picture that can be decoded" not in reason]


def test_bombs_are_refused_by_their_pixels(outcomes: dict[str, Outcome]) -> None:
    names = [name for name, _ in hostile.bombs(PIXELS)]
    assert len(names) == 6
    for name in names:
        reason = outcomes[name].reason or ""
        assert re.fullmatch(rf"1000\d+ pixels, more than SOURCE_MAX_PIXELS={PIXELS}", reason), name


def test_claims_are_refused(outcomes: dict[str, Outcome]) -> None:
    names = [name for name, _ in hostile.claims()]
    assert [name for name in names if outcomes[name].reason is None] == []
    by_pixels = [name for name in names if "SOURCE_MAX_PIXELS" in (outcomes[name].reason or "")]
    assert {name.split(".")[1] for name in by_pixels} >= {"png", "gif", "webp", "tif", "jpg"}


def test_content_decides_and_not_the_name(outcomes: dict[str, Outcome]) -> None:
    for name, _ in hostile.wrong_extensions():
        assert outcomes[name].reason is None, name
        if "-called-" in name:
            extension = name.removeprefix("is-").split("-")[0]
            assert {hostile.EXTENSIONS[one.format] for one in outcomes[name].made} == {extension}


def test_other_things_are_refused_with_what_they_are(outcomes: dict[str, Outcome]) -> None:
    for name, data in hostile.not_pictures():
        expected = repr(data[:8]) if data else "it is empty"
        assert expected in (outcomes[name].reason or ""), name
