"""The steps that provisioning reports: what it found, changed, or leaves to an administrator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["ok", "changed", "would change", "warning", "needs administrator"]

ALIAS = "myminio"
"""Alias of the server in the `mc` commands for an administrator."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the report.

    Attributes:
        state: `ok` if nothing had to change; `needs administrator` if the credentials do not
            allow the change.
        what: the resource and what happened to it, with secrets masked.
        lines: lines to copy, printed below the step: commands for an administrator, or the new
            user's credentials if no file receives them.
    """

    state: State
    what: str
    lines: tuple[str, ...] = field(default=(), repr=False)

    def text(self) -> str:
        """Return the step as printed: one line, and the lines to copy indented below it."""
        return "\n".join([f"{self.state:<8} {self.what}", *(f"    {line}" for line in self.lines)])


Report = Callable[[Step], None]


def mc_commands(endpoint: str, *commands: str) -> tuple[str, ...]:
    """Return `mc` commands for an administrator, after the one that sets their alias."""
    return (f"mc alias set {ALIAS} {endpoint}  # once", *commands)


def changed(what: str, *, dry_run: bool) -> Step:
    """Return the step of a change that was made or, in a dry run, would be made."""
    return Step("would change" if dry_run else "changed", what)
