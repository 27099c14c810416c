"""The console for everything that is not a command's result: progress, notes and errors."""

from rich.console import Console

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
