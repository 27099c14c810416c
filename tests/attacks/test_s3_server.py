"""What a hostile S3 server can cost, and where it can send the pipeline's requests."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.provisioning.admin import AdminError, Server
from resize_pipeline.resources import bounded_http
from resize_pipeline.settings import Settings
from tests.support.evil_s3 import ATTACKS, EvilS3, evil_s3

pytestmark = pytest.mark.attacks

TIMEOUT_S = 300
DEADLINE_S = 0.5
PEAK_MIB = 256
"""75 MiB of it are the program itself."""
REASON_MAX = 800
CASES = [f"{kind}.{one}" if one else kind for kind, details in ATTACKS.items() for one in details]
REQUESTS = ("list", "stat", "download", "upload", "copy", "remove", "remove all")


@pytest.fixture(scope="module")
def evil() -> Iterator[EvilS3]:
    with evil_s3() as server:
        yield server


@pytest.fixture(scope="module")
def outcomes(evil: EvilS3) -> dict[tuple[str, str], tuple[str, str, float, int]]:
    """Outcome, message, seconds and peak memory of each request under each attack."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.s3_victim", evil.url, str(DEADLINE_S), *CASES],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(bucket, name): tuple(rest) for bucket, name, *rest in lines}


@pytest.mark.parametrize("case", CASES)
def test_every_answer_ends_in_one_line_and_bounded_memory(case: str, outcomes: dict) -> None:
    for request in REQUESTS:
        outcome, message, _, peak = outcomes[case, request]
        assert outcome != "traceback", message
        assert message.isprintable(), message
        assert len(message) < REASON_MAX
        assert peak < PEAK_MIB


@pytest.mark.parametrize(
    "kind", [one for one in ATTACKS if one not in {"head", "says"}], ids=lambda kind: kind
)
def test_a_listing_is_refused(kind: str, outcomes: dict) -> None:
    for case in CASES:
        if case.partition(".")[0] == kind:
            assert outcomes[case, "list"][0] in {"TransientError", "UserError"}


def test_an_object_that_ends_early_is_asked_for_again(outcomes: dict) -> None:
    assert outcomes["cut", "download"][0] == "TransientError"


@pytest.mark.parametrize("status", ATTACKS["redirect"])
def test_no_request_follows_a_redirect(status: str, evil: EvilS3, outcomes: dict) -> None:
    for request in REQUESTS:
        outcome, message, _, _ = outcomes[f"redirect.{status}", request]
        assert outcome == "UserError"
        assert "redirects to http://127.0.0.1:" in message
    assert evil.requests
    assert not evil.elsewhere


@pytest.mark.parametrize("case", CASES)
def test_the_admin_api_is_bounded_too(
    case: str, evil: EvilS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "ANSWER_MAX_S", DEADLINE_S)
    evil.admin = case
    server = Server(
        Settings(
            minio_endpoint=evil.url,  # pyright: ignore[reportCallIssue]
            minio_root_user="root",
            minio_root_password="password",
        )
    )
    for call in (server.admin.info, server.admin.config_get, server.admin.policy_info):
        arguments = () if call == server.admin.info else ("name",)
        with pytest.raises((ResizePipelineError, AdminError)) as refused:
            server.call_json(call, *arguments)
        message = str(refused.value)
        assert message.isprintable(), message
        assert len(message) < REASON_MAX
    assert not evil.elsewhere
