"""The package's errors, by what helps: another setting, another try, or nothing.

Every message is one line that names the thing, its value and the remedy. It is shown in a tick log,
in a run's event log or on a terminal, where nobody sees the traceback.
"""

REASON_MAX = 500
"""Most characters that a message quotes from a client, a server or a file."""


class ResizePipelineError(Exception):
    """Base of the errors that this package raises on purpose."""


class UserError(ResizePipelineError):
    """A setting, a file or a command line is wrong; the message says how to correct it."""


class TooLargeError(UserError):
    """A topic refuses a message because of its size."""


class MissingBucketError(UserError):
    """A bucket does not exist."""


class RefusedError(UserError):
    """The server denies these credentials access to a bucket, or does not know them."""


class TransientError(ResizePipelineError):
    """A server is unreachable, busy or refuses for now: the same call may succeed later."""


class PermanentError(ResizePipelineError):
    """This object can never succeed as it is: another try has the same result."""


class TransformError(PermanentError):
    """A rendition's `transform` failed for this object."""


class SlowPictureError(ResizePipelineError):
    """A picture needs more time than it may take beside others: the slow lane renders it."""


MALFORMED = "Malformed"
"""The class in the dead letter of a record that can't be parsed."""
LETTER_CLASSES = frozenset({PermanentError.__name__, TransformError.__name__, MALFORMED})
"""The classes of errors in dead letters."""


def escaped(text: str | bytes) -> str:
    """Return untrusted text as one printable line, with escapes for all other characters."""
    decoded = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in decoded
    )


def one_line(text: str) -> str:
    """Return untrusted text as one short printable line."""
    # Cut first, because the text may be megabytes long. What this cuts off would not be shown.
    line = escaped(" ".join(text[: 4 * REASON_MAX].split()))
    return line if len(line) <= REASON_MAX else f"{line[: REASON_MAX - 3]}..."
