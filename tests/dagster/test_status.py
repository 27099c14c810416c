"""What the status says of a failed tick of the sensor."""

import sys

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import SensorExecutionError, user_code_error_boundary
from dagster._core.scheduler.instigation import InstigatorTick, TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info

from resize_pipeline.errors import TransientError
from resize_pipeline.status import _tick


def failed_tick(error: SerializableErrorInfo) -> InstigatorTick:
    return InstigatorTick(
        1,
        TickData(
            instigator_origin_id="origin",
            instigator_name="minio_events_sensor",
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.FAILURE,
            timestamp=0.0,
            error=error,
        ),
    )


def error_of_the_daemon(problem: Exception, cause: Exception | None) -> SerializableErrorInfo:
    """As Dagster keeps what a sensor raised: wrapped in an error of its own."""
    with (
        pytest.raises(SensorExecutionError) as wrapped,
        user_code_error_boundary(SensorExecutionError, lambda: "evaluating the sensor"),
    ):
        raise problem from cause
    return serializable_error_info_from_exc_info(wrapped._excinfo)


LINE = "Kafka at 127.0.0.1:1 does not answer: start it"


@pytest.mark.parametrize("cause", [None, OSError("connection refused")])
def test_an_error_of_ours_is_its_one_line(cause: Exception | None) -> None:
    """Neither Dagster's words around it nor the client's beneath it."""
    status = _tick(failed_tick(error_of_the_daemon(TransientError(LINE), cause)))
    assert status.message == LINE
    assert status.status == "FAILURE"


def test_another_error_is_named_with_its_class() -> None:
    status = _tick(failed_tick(error_of_the_daemon(ZeroDivisionError("division"), None)))
    assert status.message == "ZeroDivisionError: division"


def test_an_error_of_dagster_itself_is_shown() -> None:
    try:
        raise TimeoutError("the code server did not answer")
    except TimeoutError:
        info = serializable_error_info_from_exc_info(sys.exc_info())
    assert "the code server did not answer" in (_tick(failed_tick(info)).message or "")
