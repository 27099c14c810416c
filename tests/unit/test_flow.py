"""Batches overlap within the bound of memory, and the step that waits for a failure raises it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from resize_pipeline.delivery.batches import (
    Batch,
    Request,
    SourceMessage,
    Status,
    batches_of,
    linked,
)
from resize_pipeline.delivery.converge import Converger
from resize_pipeline.delivery.flow import BatchInFlight, Flow, Stage
from resize_pipeline.delivery.room import Room, Share
from resize_pipeline.errors import TransientError
from resize_pipeline.renditions.objects import Original, Rendered
from resize_pipeline.renditions.spec import Rendition
from tests.dagster.fakes import SOURCE, FakeMinio
from tests.support.waiting import wait_until

SPEC = Rendition(name="small", width=10, height=10, bucket="small-bucket")
WAIT_S = 30.0
SIZE = 10


class WatchedMinio(FakeMinio):
    """Counts the originals in memory: those that were read and not yet rendered."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def download(self, bucket: str, key: str, *, max_bytes: int) -> Original | None:
        with self.lock:
            found = super().download(bucket, key, max_bytes=max_bytes)
            self.inside += 1
            self.most = max(self.most, self.inside)
            return found


class WatchedRenderer:
    """Renders one by one, each when it may."""

    def __init__(self, store: WatchedMinio) -> None:
        self.store = store
        self.may = threading.Semaphore(0)

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        assert self.may.acquire(timeout=WAIT_S)
        with self.store.lock:
            self.store.inside -= 1
        return [Rendered(spec.name, data, 1, 1, "PNG", "image/png") for spec in renditions]


@pytest.fixture
def store() -> WatchedMinio:
    return WatchedMinio()


@pytest.fixture
def renderer(store: WatchedMinio) -> Iterator[WatchedRenderer]:
    renderer = WatchedRenderer(store)
    yield renderer
    renderer.may.release(1000)


Opens = Callable[..., Flow]


@pytest.fixture
def flows(renderer: WatchedRenderer) -> Iterator[Opens]:
    opened: list[Flow] = []

    def opens(max_objects: int = 100, max_bytes: int = 1000) -> Flow:
        opened.append(Flow(max_objects=max_objects, max_bytes=max_bytes, renderers=2))
        return opened[-1]

    yield opens
    renderer.may.release(1000)
    for flow in opened:
        flow.close()


def made_by(store: FakeMinio, renderer: WatchedRenderer, flow: Flow) -> Callable[[], Converger]:
    one = Converger(
        store=store,
        renderer=renderer,
        renditions=(SPEC,),
        source_bucket=SOURCE,
        source_max_bytes=1000,
        delete_renditions=False,
        retry_s=0.0,
        alone=flow.alone,
    )
    return lambda: one


def uploaded(store: FakeMinio, count: int, *, each: int, claimed: int = SIZE) -> list[Batch]:
    """Batches of so many objects, as their events announce them."""
    requests = []
    for index in range(count):
        store.put(f"{index}", bytes(SIZE))
        message = SourceMessage("events", 0, index, None, b"{}")
        requests.append(Request(f"{index}", claimed, message))
    return linked(batches_of(requests, max_objects=each, max_bytes=10**9))


def keys(flight: BatchInFlight) -> set[str]:
    confirmed, unsettled = flight.outcomes()
    assert not unsettled
    assert {one.settled.status for one in confirmed} == {Status.RENDERED}
    return {one.settled.request.key for one in confirmed}


def test_the_next_batch_is_downloaded_while_one_is_rendered(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    first, second = uploaded(store, 6, each=3)
    flow = flows()
    flight = flow.take(first, made_by(store, renderer, flow))
    flight.wait(Stage.DOWNLOAD)
    wait_until(lambda: store.inside == 6, WAIT_S, "the originals of both batches")
    assert not store.written()
    renderer.may.release(6)
    assert keys(flight) == {"0", "1", "2"}
    # Nobody has asked for it yet.
    wait_until(lambda: len(store.written()) == 6, WAIT_S, "the renditions of both batches")
    assert keys(flow.take(second, made_by(store, renderer, flow))) == {"3", "4", "5"}


def test_only_one_batch_is_begun_ahead(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    batches = uploaded(store, 9, each=1)
    flow = flows()
    renderer.may.release(100)
    for number, batch in enumerate(batches):
        keys(flow.take(batch, made_by(store, renderer, flow)))
        seen = {key for name, _, key in store.calls if name == "download"}
        assert len(seen) <= number + 2


@pytest.mark.parametrize(("objects", "size", "most"), [(100, 45, 4), (3, 1000, 3)])
def test_no_more_is_in_memory_than_the_bound(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens, objects: int, size: int, most: int
) -> None:
    batches = uploaded(store, 40, each=4)
    flow = flows(objects, size)
    first = flow.take(batches[0], made_by(store, renderer, flow))
    wait_until(lambda: store.inside == most, WAIT_S, "a full room")
    renderer.may.release(100)
    done = keys(first)
    for batch in batches[1:]:
        done |= keys(flow.take(batch, made_by(store, renderer, flow)))
    assert len(done) == 40
    assert store.most <= most


def test_what_its_claim_hid_is_left_to_the_end_and_rendered_alone(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    """Senders choose the sizes in events."""
    (batch,) = uploaded(store, 5, each=5, claimed=1)
    flow = flows(max_bytes=2 * SIZE)
    flight = flow.take(batch, made_by(store, renderer, flow))
    renderer.may.release(100)
    confirmed, unsettled = flight.outcomes()
    assert len(confirmed) + len(unsettled) == 5
    assert {one.settled.status for one in unsettled} <= {Status.DEFERRED}
    for one in unsettled:
        settled, _ = flight.converger.confirm(one.settled)
        assert settled.status is Status.RENDERED
    assert store.most <= 2
    assert len(store.written()) == 5


def test_one_larger_than_the_memory_is_rendered(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    (batch,) = uploaded(store, 3, each=3)
    flow = flows(max_bytes=SIZE - 1)
    renderer.may.release(100)
    assert len(keys(flow.take(batch, made_by(store, renderer, flow)))) == 3
    assert store.most == 1


def test_one_overwritten_meanwhile_is_left_to_the_end(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    (batch,) = uploaded(store, 1, each=1)
    flow = flows()
    flight = flow.take(batch, made_by(store, renderer, flow))
    flight.wait(Stage.DOWNLOAD)
    store.put("0", b"newer")
    renderer.may.release(100)
    confirmed, (left,) = flight.outcomes()
    assert not confirmed
    settled, written = flight.converger.confirm(left.settled)
    assert settled.status is Status.RENDERED
    assert written
    assert store.objects[SPEC.bucket, "0"].data == b"newer"


def test_the_step_that_waits_for_a_failure_raises_it_and_no_earlier_one(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    def no_answer(name: str, bucket: str, key: str) -> None:
        del bucket
        if (name, key) == ("upload", "1"):
            raise TransientError("no answer")

    first, second = uploaded(store, 4, each=2)
    store.before = no_answer
    flow = flows()
    renderer.may.release(100)
    flight = flow.take(first, made_by(store, renderer, flow))
    flight.wait(Stage.DOWNLOAD)
    flight.wait(Stage.RENDER)
    with pytest.raises(TransientError, match="no answer"):
        flight.outcomes()
    # Dagster executes the steps of the other batches all the same.
    assert keys(flow.take(second, made_by(store, renderer, flow))) == {"2", "3"}


def test_after_a_failure_no_object_of_the_batch_is_begun(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    def no_answer(name: str, bucket: str, key: str) -> None:
        del bucket, key
        if name == "download":
            raise TransientError("no answer")

    (batch,) = uploaded(store, 100, each=100)
    store.before = no_answer
    flow = flows(max_objects=1)
    flight = flow.take(batch, made_by(store, renderer, flow))
    with pytest.raises(TransientError):
        flight.wait(Stage.DOWNLOAD)
    assert len([name for name, _, _ in store.calls if name == "download"]) < 20


def test_a_run_that_ends_early_begins_nothing_more(
    store: WatchedMinio, renderer: WatchedRenderer, flows: Opens
) -> None:
    batches = uploaded(store, 8, each=4)
    flow = flows(max_objects=2)
    flow.take(batches[0], made_by(store, renderer, flow))
    wait_until(lambda: store.inside == 2, WAIT_S, "two originals")
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(flow.close)
        renderer.may.release(100)
        closed.result(WAIT_S)
    assert len([name for name, _, _ in store.calls if name == "download"]) <= 4


class TestRoom:
    def test_a_claim_is_no_bound_for_what_is_there(self) -> None:
        room = Room(5, 100)
        assert room.enter(60)
        share = Share(room, 60)
        assert room.enter(10)
        assert share.take(60)
        assert not share.take(31)
        share.give_back(60)
        assert share.take(90)
        share.drop()
        assert room.enter(90)

    def test_one_that_claims_more_than_all_there_is_waits_until_it_is_alone(self) -> None:
        room = Room(5, 100)
        assert room.enter(1)
        with ThreadPoolExecutor(1) as pool:
            large = pool.submit(room.enter, 10**15)
            assert not large.done()
            room.drop(1)
            assert large.result(WAIT_S)
        assert Share(room, 10**15).take(10**12)

    def test_a_closed_one_lets_nobody_in(self) -> None:
        room = Room(1, 100)
        assert room.enter(1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(room.enter, 1)
            room.close()
            assert not waiting.result(WAIT_S)


def test_batches_know_which_one_follows() -> None:
    batches = linked(batches_of([Request("a", 1), Request("b", 1)], max_objects=1, max_bytes=9))
    assert [batch.following for batch in batches] == [batches[1], None]
    assert batches[0].following is batches[1]
    assert replace(batches[0], following=None) == batches[0]
