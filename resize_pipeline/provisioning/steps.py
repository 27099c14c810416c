"""What one part of provisioning found or did."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["ok", "changed", "would change", "warning", "needs administrator"]

ALIAS = "myminio"
"""The name that the commands for an administrator give the server in `mc`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the report.

    Attributes:
        state: `ok` was right already; `needs administrator` was not done, for want of rights.
        what: the thing and what happened to it, secrets masked.
        lines: what belongs below the line, to be copied: commands for an administrator, or the
            new user's credentials when no file was there to take them.
    """

    state: State
    what: str
    lines: tuple[str, ...] = field(default=(), repr=False)

    def text(self) -> str:
        """Give the step as it is printed: one line, and the lines to copy indented below it."""
        return "\n".join([f"{self.state:<8} {self.what}", *(f"    {line}" for line in self.lines)])


Report = Callable[[Step], None]


def mc_commands(endpoint: str, *commands: str) -> tuple[str, ...]:
    """Give commands of `mc` for an administrator, with the one that makes their alias first."""
    return (f"mc alias set {ALIAS} {endpoint}  # once", *commands)


def changed(what: str, *, dry_run: bool) -> Step:
    """Give the step of a change, made or to be made."""
    return Step("would change" if dry_run else "changed", what)
