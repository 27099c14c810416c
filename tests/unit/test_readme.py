"""The README says of each setting what the settings class says of it."""

from pathlib import Path

from pydantic import SecretStr

from resize_pipeline.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def row(name: str) -> str:
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    shown = (
        ""
        if default is None
        else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )
    return f"| `{name.upper()}` | {shown} | {field.description} |"


def test_every_setting_is_in_the_table() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    missing = [row(name) for name in Settings.model_fields if row(name) not in rows]
    assert not missing, "\n" + "\n".join(missing)


def test_the_table_has_no_setting_that_is_gone() -> None:
    names = [line.split("`")[1] for line in README.splitlines() if line.startswith("| `")]
    assert {name for name in names if name.isupper()} <= {
        name.upper() for name in Settings.model_fields
    }
