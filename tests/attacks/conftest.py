"""Prints what became of each attack, as a table."""

from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

ATTACK = "attack"
MEASURED = "measured"
OUTCOMES = {"passed": "failed, as it must", "failed": "SUCCEEDED", "skipped": "not tried"}


def _described(item: pytest.Item) -> str:
    """Return the attack in words: the first line of the test's docstring, or else its name."""
    function = getattr(item, "function", None)
    docstring = (function.__doc__ or "").strip()
    name = getattr(item, "originalname", None) or item.name
    words = docstring.splitlines()[0] if docstring else name.removeprefix("test_").replace("_", " ")
    case = getattr(item, "callspec", None)
    return f"{words} [{case.id}]" if case else words


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    del call
    report: Any = yield
    report.user_properties.append((ATTACK, (item.path.stem, _described(item))))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    table = Table("file", "attack", "outcome", "measured", box=None)
    for outcome, said in OUTCOMES.items():
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(getattr(report, "user_properties", ()))
            if ATTACK in properties and (report.when == "call" or outcome != "passed"):
                file, attack = properties[ATTACK]
                measured = properties.get(MEASURED, "")
                table.add_row(*map(escape, (file.removeprefix("test_"), attack, said, measured)))
    if table.row_count:
        terminalreporter.section("attacks by outcome")
        Console(highlight=False, width=200).print(table)
