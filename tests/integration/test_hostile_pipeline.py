"""Hostile pictures through the real pipeline: dead letters with reasons, neighbours rendered."""

import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import dagster as dg
import pytest

from resize_pipeline.settings import Settings
from tests.integration.test_pipeline import Pipeline
from tests.support import hostile
from tests.support.letters import current_letters
from tests.support.pictures import decoded

pytestmark = pytest.mark.integration

PIXELS = 10**7
FIRST_TRY_S = 0.5
"""So short that some of them are left to the slow lane, however fast the machine is."""


@pytest.fixture
def pipeline(stack: Settings, tmp_path: Path) -> Iterator[Pipeline]:
    with dg.DagsterInstance.ephemeral() as instance:
        settings = stack.model_copy(
            update={
                "source_max_pixels": PIXELS,
                "output_max_pixels": PIXELS,
                "render_first_try_s": FIRST_TRY_S,
            }
        )
        yield Pipeline(settings, tmp_path, instance)


def test_hostile_pictures_are_dead_lettered_and_their_neighbours_rendered(
    pipeline: Pipeline,
) -> None:
    good = {f"good/{name}": data for name, data in hostile.seeds().items()}
    bad = dict(
        chain(
            hostile.claims(),
            hostile.bombs(PIXELS),
            hostile.not_pictures(),
            *(hostile.truncated(f"plain.{one}") for one in hostile.EXTENSIONS.values()),
        )
    )
    either = {
        f"either/{name}": data
        for name, data in chain(
            hostile.hidden_bombs(),
            hostile.wrong_extensions(),
            hostile.many_frames(2000),
            hostile.mutations(100, seed=7),
        )
    }
    # Mixed, so that each batch has good and bad ones. Other suffixes send no event.
    suffixes = tuple(pipeline.settings.suffixes)
    objects = {
        key: data
        for key, data in sorted(
            {**good, **bad, **either}.items(), key=lambda item: zlib.crc32(item[1])
        )
        if key.endswith(suffixes)
    }
    assert len(objects) > 230
    for key, data in objects.items():
        pipeline.put(key, data)
    pipeline.wait_for_events(len(objects))
    while requests := (pipeline.tick().run_requests or pipeline.slow_lane_tick().run_requests):
        for request in requests:
            pipeline.run(request)
    assert pipeline.slow_lane_cursor

    letters = current_letters(pipeline.kafka, pipeline.settings.dead_letter_topic)
    prefix = f"{pipeline.settings.source_bucket}/".encode()
    reasons = {
        key.removeprefix(prefix).decode(): letter.error_message for key, letter in letters.items()
    }
    large = pipeline.keys(pipeline.large)
    assert pipeline.keys(pipeline.small) == {f"thumbs/{key}" for key in large}
    assert large | set(reasons) == set(objects)
    assert not large & set(reasons)
    assert large >= set(good)
    assert set(reasons) >= {key for key in bad if key in objects}
    assert not [one for one in reasons.values() if not one.strip() or not one.isprintable()]
    assert not [one for one in reasons.values() if "ended with exit" in one or "RENDER_" in one]
    assert {letter.error_class for letter in letters.values()} == {"PermanentError"}
    assert "SOURCE_MAX_PIXELS=10000000" in reasons["bomb.webp"]
    for key in good:
        data, _ = pipeline.get(pipeline.small, f"thumbs/{key}")
        assert 8 <= max(decoded(data).size) <= 32
