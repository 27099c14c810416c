"""What each error of an S3 server means for the pipeline, and the line that explains it.

Only one answer means that an object is missing. A wrong guess would delete renditions whose source
exists, so every other answer rejects the object, is tried again, or is shown to the operator.
"""

import datetime as dt
import traceback
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Self

from minio.error import S3Error

from resize_pipeline.errors import (
    MissingBucketError,
    PermanentError,
    RefusedError,
    ResizePipelineError,
    TransientError,
    UserError,
    one_line,
)


class Meaning(Enum):
    """What an error code means.

    MISSING: the object or the version does not exist. MISSING_BUCKET: its bucket does not exist.
    OBJECT: this object can't be read or written as it is, whoever asks and however often.
    UNKNOWN_KEYS: the access key or the secret key is wrong. DENIED: the credentials are not allowed
    to do this. CLOCK: the clocks of the two hosts differ by too much. SETTING: a setting is wrong.
    BUSY: the same request may succeed later.
    """

    MISSING = auto()
    MISSING_BUCKET = auto()
    OBJECT = auto()
    UNKNOWN_KEYS = auto()
    DENIED = auto()
    CLOCK = auto()
    SETTING = auto()
    BUSY = auto()


_CODES = {
    Meaning.MISSING: "NoSuchKey NoSuchVersion",
    Meaning.MISSING_BUCKET: "NoSuchBucket",
    Meaning.OBJECT: (
        "EntityTooLarge EntityTooSmall InvalidArgument InvalidEncryptionAlgorithmError "
        "InvalidObjectState InvalidRange InvalidRequest InvalidStorageClass InvalidTag InvalidURI "
        "KMS.DisabledException KMS.InvalidKeyUsageException KMS.InvalidStateException "
        "KMS.NotFoundException KeyTooLongError MetadataTooLarge MethodNotAllowed "
        "MissingSecurityHeader NotImplemented ObjectLockConfigurationNotFoundError "
        "RequestHeaderSectionTooLarge UnexpectedContent XMinioInvalidObjectName "
        "XMinioObjectExistsAsDirectory XMinioObjectTampered XMinioParentIsObject"
    ),
    Meaning.UNKNOWN_KEYS: (
        "ExpiredToken InvalidAccessKeyId InvalidSecurity InvalidToken SignatureDoesNotMatch "
        "TokenRefreshRequired"
    ),
    Meaning.DENIED: (
        "AccessControlListNotSupported AccessDenied AccountProblem AllAccessDisabled "
        "InvalidPayer NotSignedUp RequesterPays UserAccessDenied"
    ),
    Meaning.CLOCK: "RequestTimeTooSkewed",
    Meaning.SETTING: (
        "AuthorizationHeaderMalformed AuthorizationQueryParametersError CredentialsNotSupported "
        "IllegalLocationConstraintException IllegalVersioningConfigurationException "
        "InvalidBucketName InvalidBucketState InvalidLocationConstraint InvalidRegion "
        "InvalidTargetBucketForLogging PermanentRedirect Redirect TemporaryRedirect"
    ),
    Meaning.BUSY: (
        "BadDigest Busy ConditionalRequestConflict IncompleteBody IncompleteSignature "
        "InternalError InvalidDigest MissingContentLength OperationAborted PreconditionFailed "
        "RequestTimeout ServiceUnavailable SlowDown SlowDownRead SlowDownWrite ThrottlingException "
        "TooManyRequests XAmzContentChecksumMismatch XAmzContentSHA256Mismatch XMinioBackendDown "
        "XMinioServerNotInitialized XMinioStorageFull XMinioWriteQuorum XMinioReadQuorum"
    ),
}
MEANINGS = {code: meaning for meaning, codes in _CODES.items() for code in codes.split()}
"""The codes that a server can answer to the requests of the pipeline (Amazon S3 API, "Error
responses"; MinIO's cmd/api-errors.go for XMinio)."""

BAD_REQUESTS = frozenset(
    {400, 404, 405, 406, 410, 411, 413, 414, 415, 416, 417, 422, 431, 451, 501}
)
"""HTTP statuses that the same request would get again (RFC 9110, 15.5)."""

PARSERS = frozenset({"minio.datatypes", "minio.error", "minio.time", "minio.xml"})
"""The modules of minio-py that parse answers."""

UNKNOWN_KEYS = frozenset(_CODES[Meaning.UNKNOWN_KEYS].split())
DENIED = UNKNOWN_KEYS | frozenset(_CODES[Meaning.DENIED].split())

UNREADABLE_FILTERS = (
    "notification rules with filters that an S3 client can't read, such as Ceph's by metadata or "
    "tags: remove them, or use another SOURCE_BUCKET"
)

REGION_HINT = "; use region "
"""minio-py's words for a refused HEAD whose answer names the region of the bucket, under a code of
its own (api.py)."""
SETTING_OF = {
    "AuthorizationHeaderMalformed": "MINIO_REGION",
    "InvalidRegion": "MINIO_REGION",
    "InvalidLocationConstraint": "MINIO_REGION",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as a server answered it.

    Attributes:
        code: the S3 error code; empty if the answer has none.
        message: its description.
        status: the HTTP status; 200 for one object in the answer to a request for many.
        date: the server's clock, as the HTTP header has it; empty if unknown.
    """

    code: str
    message: str
    status: int
    date: str = ""

    @classmethod
    def of(cls, error: S3Error) -> Self:
        """Return the answer that the client raised."""
        headers = error.response.headers
        message = error.message or ""
        return cls(
            "InvalidRegion" if REGION_HINT in message else error.code or "",
            message,
            error.response.status,
            headers.get("date", ""),
        )

    @property
    def meaning(self) -> Meaning:
        """What the answer means; unknown codes are judged by their HTTP status."""
        if self.code in MEANINGS:
            return MEANINGS[self.code]
        if self.status in {401, 403}:
            return Meaning.DENIED
        if 300 <= self.status < 400:  # noqa: PLR2004
            return Meaning.SETTING
        if self.status in BAD_REQUESTS:
            return Meaning.OBJECT
        return Meaning.BUSY

    @property
    def text(self) -> str:
        """Code and message as one short printable line."""
        said = f"{self.code}: {self.message}" if self.message else self.code
        return one_line(said) or f"HTTP {self.status}"


def is_missing(error: S3Error) -> bool:
    """Return whether this answer means that the object, or the version, does not exist.

    S3 answers 405 with this header for a version that is a delete marker (Amazon S3 API,
    HeadObject).
    """
    if error.code == "MethodNotAllowed":
        return error.response.headers.get("x-amz-delete-marker") == "true"
    return Answer.of(error).meaning is Meaning.MISSING


def is_malformed(error: BaseException) -> bool:
    """Return whether the client could not parse an answer.

    It raises `ValueError` for that, as it does for arguments: what tells them apart is where.
    """
    if isinstance(error, SyntaxError | UnicodeDecodeError):  # ElementTree's is a SyntaxError.
        return True
    if not isinstance(error, ValueError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # The second is where minio-py fails at any 409 without a body.
    return any(frame.f_globals.get("__name__") in PARSERS for frame in frames) or (
        bool(frames) and frames[-1].f_code.co_name == "_url_open"
    )


def explained_answer(
    endpoint: str, bucket: str, key: str | None, answer: Answer
) -> ResizePipelineError:
    """Return the error with its remedy in one line.

    Args:
        endpoint: address of the server.
        bucket: the bucket of the request.
        key: the object of the request; None if it concerned the bucket.
        answer: the server's answer.
    """
    code, said = one_line(answer.code), answer.text
    match answer.meaning:
        case Meaning.MISSING_BUCKET:
            return MissingBucketError(
                f"MinIO at {endpoint} has no bucket {bucket!r}: run `resize-pipeline provision`, "
                "or change SOURCE_BUCKET or RENDITIONS_FILE"
            )
        case Meaning.UNKNOWN_KEYS:
            return RefusedError(
                f"MinIO at {endpoint} does not know this access key with this secret key "
                f"({code}): correct MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and restart the "
                "pipeline, which reads them at its start"
            )
        case Meaning.DENIED:
            return RefusedError(
                f"MinIO at {endpoint} refuses access to bucket {bucket!r} ({code}): "
                "run `resize-pipeline provision`, which corrects the policy, or check "
                "MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and restart the pipeline after a change"
            )
        case Meaning.CLOCK:
            return TransientError(_clocks(endpoint, answer.date))
        case Meaning.SETTING:
            setting = SETTING_OF.get(answer.code, "MINIO_ENDPOINT and MINIO_REGION")
            return UserError(
                f"MinIO at {endpoint} rejects requests to bucket {bucket!r} ({said}): "
                f"correct {setting}"
            )
        case Meaning.OBJECT if key is not None:
            return PermanentError(_about_object(answer))
        case Meaning.OBJECT:
            return UserError(
                f"MinIO at {endpoint} rejects a request to bucket {bucket!r} ({said}): "
                "correct MINIO_ENDPOINT and SOURCE_BUCKET"
            )
        case _:
            return TransientError(
                f"MinIO at {endpoint} answered {said} for bucket {bucket!r}: try again"
            )


def _about_object(answer: Answer) -> str:
    # Amazon and MinIO use the code of any bad request, with one sentence for this case.
    if answer.code == "InvalidRequest" and "server side encryption" in answer.message.lower():
        return (
            "it is encrypted with its uploader's own key (SSE-C), which the pipeline does not "
            "have: upload it without that key, or with SSE-S3 or SSE-KMS"
        )
    return answer.text


def _clocks(endpoint: str, date: str) -> str:
    here = dt.datetime.now(dt.UTC)
    try:
        there = f"{parsedate_to_datetime(date).astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        there = "an unknown time"
    return (
        f"MinIO at {endpoint} refuses requests because the clocks differ (RequestTimeTooSkewed): "
        f"its clock shows {there}, this host's {here:%Y-%m-%d %H:%M:%S} UTC: correct the clock "
        "that is wrong"
    )
