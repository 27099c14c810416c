"""What a batch of objects came to, in numbers that add up over all runs. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from resize_pipeline.delivery.batches import Settled, Status
from resize_pipeline.renditions.objects import EPOCH

DELAYS_S = (1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the groups that delays are counted in. A tick of the sensor and the start of a
run take a few seconds, and a backlog is told by minutes."""

Number = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Outcomes(BaseModel):
    """What a batch came to.

    Attributes:
        objects: number of objects by outcome, a `Status`.
        render_s: seconds for which pictures were rendered, one at a time in each child.
        delays: number of rendered objects by the seconds from their upload to their renditions,
            for each of `DELAYS_S` and for longer ones; only of objects that an event announced.
        delays_s: the sum of these seconds.
    """

    model_config = ConfigDict(extra="forbid")

    objects: dict[Status, Number] = {}
    render_s: Seconds = 0.0
    delays: Annotated[
        list[Number], Field(min_length=len(DELAYS_S) + 1, max_length=len(DELAYS_S) + 1)
    ] = [0] * (len(DELAYS_S) + 1)
    delays_s: Seconds = 0.0

    @classmethod
    def of(cls, settled: Iterable[Settled]) -> Self:
        """Return what some objects came to."""
        found = list(settled)
        delays = [0] * (len(DELAYS_S) + 1)
        delays_s = 0.0
        for one in found:
            delay = _delay(one)
            if delay is not None:
                delays[bisect_left(DELAYS_S, delay)] += 1
                delays_s += delay
        return cls(
            objects=Counter(one.status for one in found),
            render_s=sum(one.render_s for one in found),
            delays=delays,
            delays_s=delays_s,
        )


def _delay(settled: Settled) -> float | None:
    """Return the seconds from the upload of an object to its renditions; None if unknown."""
    # A backfill makes renditions of objects that were uploaded long before.
    if settled.written_at is None or settled.request.message is None:
        return None
    uploaded = settled.known.source.last_modified if settled.known else EPOCH
    # MinIO's clock may be ahead of this machine's.
    return None if uploaded == EPOCH else max(0.0, settled.written_at - uploaded.timestamp())
