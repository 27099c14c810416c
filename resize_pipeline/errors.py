"""What can go wrong, told apart by what helps: trying again, or not.

Every message is one line that names the thing, its value and the remedy, because it ends up in a
tick log, in a run's event log or on a terminal where nobody sees the traceback.
"""


class ResizePipelineError(Exception):
    """Base of the errors that this package raises on purpose."""


class UserError(ResizePipelineError):
    """A setting, a file or a command line is wrong; the message says how to mend it."""


class TransientError(ResizePipelineError):
    """A server is away, busy or refused for now: the same call may succeed later."""


class PermanentError(ResizePipelineError):
    """This object can never succeed as it is: trying again gives the same result."""
