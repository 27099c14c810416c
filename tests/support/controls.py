"""What a terminal would obey or hide."""

import unicodedata

CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Those of Unicode whose characters are not text."""


def controls(text: str) -> set[str]:
    """Return the characters of a text, except line feeds and tabs, that are not shown as text."""
    return {one for one in text if unicodedata.category(one) in CATEGORIES} - {"\n", "\t"}
