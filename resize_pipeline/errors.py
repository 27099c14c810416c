"""What can go wrong, told apart by what helps: trying again, or not.

Every message is one line that names the thing, its value and the remedy, because it ends up in a
tick log, in a run's event log or on a terminal where nobody sees the traceback.
"""

REASON_MAX = 500
"""Longest text in characters that is taken over from others into a message of ours."""


class ResizePipelineError(Exception):
    """Base of the errors that this package raises on purpose."""


class UserError(ResizePipelineError):
    """A setting, a file or a command line is wrong; the message says how to mend it."""


class MissingBucketError(UserError):
    """A bucket is not there."""


class RefusedError(UserError):
    """The server refuses a bucket to these credentials, or does not know them."""


class TransientError(ResizePipelineError):
    """A server is away, busy or refused for now: the same call may succeed later."""


class PermanentError(ResizePipelineError):
    """This object can never succeed as it is: trying again gives the same result."""


class TransformError(PermanentError):
    """A rendition's own `transform` failed with this object."""


def one_line(text: str) -> str:
    """Give text that strangers may have written as one short printable line."""
    # Cut first, for it may be megabytes; nothing that is cut off by this could be shown below.
    words = " ".join(text[: 4 * REASON_MAX].split())
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in words
    )
    return line if len(line) <= REASON_MAX else f"{line[: REASON_MAX - 3]}..."
