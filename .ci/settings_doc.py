"""Writes docs/settings.md from the Settings class: `make docs`."""

from pathlib import Path

from pydantic import SecretStr

from resize_pipeline.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEADINGS = {
    "pipeline_name": "The pipeline",
    "minio_endpoint": "MinIO",
    "notify_kafka_target": "Notifications from MinIO to Kafka",
    "kafka_bootstrap_servers": "Kafka",
    "renditions_file": "Renditions and partitions",
    "run_max_objects": "Runs and batches",
    "render_timeout_s": "Rendering",
    "retry_s": "Behaviour",
    "local_stack": "The local stack and the UI",
}
"""The heading that stands before a setting, by the setting's name."""
INTRODUCTION = """\
# Settings

Settings come from environment variables and from `.env`. An exported variable overrides `.env`,
`.env` overrides the credentials that `resize-pipeline provision` saved in `LOCAL_DIR`, and those
override the files in `SECRETS_DIR`, in which `minio_secret_key` is the one line of
`MINIO_SECRET_KEY`. Sizes are in bytes. A wrong value stops the command with one line that names
the variable and what is allowed. A line of `.env` that can't be parsed, or that looks like a
misspelt setting, causes a warning on standard error.

`make docs` generates this page from the class `Settings` in `resize_pipeline/settings/`.
"""
OTHERS = """\

## Dagster's own variables

`DAGSTER_HOME` is the folder of `dagster.yaml`; `DAGSTER_STORAGE_DIR`, which `dagster.yaml` refers
to, is the folder of the run history and of the sensor's cursor. While they are unset,
`resize-pipeline` uses the current folder and `LOCAL_DIR/dagster`.

Dagster keeps its history in SQLite. To keep it in PostgreSQL, install the extra `postgres`, set
`DAGSTER_HOME` to `deploy/postgres`, and export `DAGSTER_PG_HOST`, `DAGSTER_PG_PORT`,
`DAGSTER_PG_USERNAME`, `DAGSTER_PG_PASSWORD` and `DAGSTER_PG_DB`; see
[operations.md](operations.md#postgresql). While `SECRETS_DIR` is exported, `DAGSTER_PG_PASSWORD`
and `CELERY_BROKER_URL` may be files in it, too.
"""


def row(name: str) -> str:
    """Return the table row of a setting."""
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        default = str(default).lower()
    shown = "" if default is None else f"`{default}`"
    return f"| `{name.upper()}` | {shown} | {field.description} |"


def page() -> str:
    """Return the text of docs/settings.md."""
    lines: list[str] = []
    for name in Settings.model_fields:
        if name in HEADINGS:
            lines += ["", f"## {HEADINGS[name]}", "", "| variable | default | meaning |"]
            lines += ["| --- | --- | --- |"]
        lines.append(row(name))
    return INTRODUCTION + "\n".join(lines) + "\n" + OTHERS


if __name__ == "__main__":
    PAGE.write_text(page())
