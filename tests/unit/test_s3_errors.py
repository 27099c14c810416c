"""What an S3 server's errors mean: only one answer means that an object is missing."""

import datetime as dt

import pytest
import urllib3
from minio.error import S3Error

from resize_pipeline.errors import (
    MissingBucketError,
    PermanentError,
    RefusedError,
    TransientError,
    UserError,
)
from resize_pipeline.resources.s3_errors import (
    MEANINGS,
    Answer,
    Meaning,
    explained_answer,
    is_missing,
)

ENDPOINT = "http://minio:9000"

# Amazon S3 API, "Error responses", List of error codes: those that a request for an object or a
# listing can get, with their status.
AMAZON = {
    "AccessDenied": 403,
    "AccountProblem": 403,
    "AllAccessDisabled": 403,
    "AuthorizationHeaderMalformed": 400,
    "BadDigest": 400,
    "ConditionalRequestConflict": 409,
    "CredentialsNotSupported": 400,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "ExpiredToken": 400,
    "IllegalLocationConstraintException": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidBucketState": 409,
    "InvalidDigest": 400,
    "InvalidEncryptionAlgorithmError": 400,
    "InvalidObjectState": 403,
    "InvalidPayer": 403,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidSecurity": 403,
    "InvalidStorageClass": 400,
    "InvalidTag": 400,
    "InvalidToken": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "MissingSecurityHeader": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchVersion": 404,
    "NotImplemented": 501,
    "NotSignedUp": 403,
    "OperationAborted": 409,
    "PermanentRedirect": 301,
    "PreconditionFailed": 412,
    "Redirect": 307,
    "RequestHeaderSectionTooLarge": 400,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "TemporaryRedirect": 307,
    "TokenRefreshRequired": 400,
    "UnexpectedContent": 400,
    "XMinioInvalidObjectName": 400,
    "XMinioServerNotInitialized": 503,
    "XMinioStorageFull": 507,
}
ERRORS = {
    Meaning.MISSING_BUCKET: MissingBucketError,
    Meaning.OBJECT: PermanentError,
    Meaning.UNKNOWN_KEYS: RefusedError,
    Meaning.DENIED: RefusedError,
    Meaning.CLOCK: TransientError,
    Meaning.SETTING: UserError,
    Meaning.BUSY: TransientError,
}


def answered(code: str, status: int, **headers: str) -> S3Error:
    response = urllib3.HTTPResponse(status=status, headers=headers)
    return S3Error(response, code, "because", "/b/k", "r1", None, "b", "k")


@pytest.mark.parametrize("code", AMAZON)
def test_every_code_of_the_table_has_a_meaning_and_a_line(code: str) -> None:
    meaning = MEANINGS[code]
    answer = Answer.of(answered(code, AMAZON[code]))
    if meaning is Meaning.MISSING:
        return
    error = explained_answer(ENDPOINT, "b", "k", answer)
    assert type(error) is ERRORS[meaning]
    assert code in str(error) or meaning is Meaning.MISSING_BUCKET
    assert "\n" not in str(error)


def test_only_two_codes_mean_missing() -> None:
    missing = {
        code
        for code, status in (AMAZON | dict.fromkeys(MEANINGS, 400)).items()
        if is_missing(answered(code, status))
    }
    assert missing == {"NoSuchKey", "NoSuchVersion"}


def test_a_delete_marker_is_missing_and_another_405_is_not() -> None:
    marker = {"x-amz-delete-marker": "true"}
    assert is_missing(answered("MethodNotAllowed", 405, **marker))
    assert not is_missing(answered("MethodNotAllowed", 405))
    assert not is_missing(answered("MethodNotAllowed", 501))


def test_an_unknown_code_is_judged_by_its_status_and_never_missing() -> None:
    kinds: dict[type, list[int]] = {}
    for status in range(300, 600):
        error = answered("SomethingNew", status)
        assert not is_missing(error)
        explained = explained_answer(ENDPOINT, "b", "k", Answer.of(error))
        kinds.setdefault(type(explained), []).append(status)
    assert kinds[RefusedError] == [401, 403]
    assert kinds[UserError] == list(range(300, 400))
    assert {400, 404, 405, 416, 501} < set(kinds[PermanentError])
    assert {408, 409, 412, 429, 500, 502, 503, 504, 507} < set(kinds[TransientError])


def test_an_object_encrypted_by_a_customers_key_is_named() -> None:
    said = (
        "The object was stored using a form of Server Side Encryption. The correct parameters "
        "must be provided to retrieve the object."
    )
    error = explained_answer(ENDPOINT, "b", "k", Answer("InvalidRequest", said, 400))
    assert isinstance(error, PermanentError)
    assert "SSE-C" in str(error)


def test_wrong_clocks_are_named_with_both_times() -> None:
    answer = Answer("RequestTimeTooSkewed", "", 403, "Fri, 27 Nov 2026 09:30:00 GMT")
    said = str(explained_answer(ENDPOINT, "b", "k", answer))
    assert "its clock shows 2026-11-27 09:30:00 UTC" in said
    assert f"this host's {dt.datetime.now(dt.UTC):%Y-%m-%d}" in said


def test_a_region_that_only_a_header_names() -> None:
    response = urllib3.HTTPResponse(status=400)
    said = "Bad request; use region us-east-1"
    error = S3Error(response, "BadRequest", said, "b", None, None, bucket_name="b")
    assert str(explained_answer(ENDPOINT, "b", None, Answer.of(error))).endswith(
        "(InvalidRegion: Bad request; use region us-east-1): correct MINIO_REGION"
    )


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Nov 2026 09:30:00 GMT"])
def test_a_server_without_a_clock(date: str) -> None:
    answer = Answer("RequestTimeTooSkewed", "", 403, date)
    assert "an unknown time" in str(explained_answer(ENDPOINT, "b", "k", answer))


def test_a_wrong_region_names_its_setting() -> None:
    answer = Answer("AuthorizationHeaderMalformed", "the region is wrong", 400)
    said = str(explained_answer(ENDPOINT, "b", "k", answer))
    assert said.endswith("correct MINIO_REGION")


def test_a_servers_words_are_bounded_and_printable() -> None:
    for answer in (
        Answer("Invalid\x1b[31m" + "x" * 10**6, "y" * 10**6, 400),
        Answer("InternalError", "\x1b]0;\x07" * 10**5, 500),
        Answer("Deny\x1b", "", 403),
    ):
        said = str(explained_answer(ENDPOINT, "b", "k", answer))
        assert len(said) < 1500
        assert said.isprintable()
