"""Writes docs/api.md, the public Python API, from docstrings: `make docs`."""

import re
from pathlib import Path

import griffe
import griffe2md

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "api.md"
PUBLIC = {
    "Definitions": (
        "To load the pipeline from code of your own, for instance beside other settings.",
        {
            "resize_pipeline.environment.load_settings": False,
            "resize_pipeline.settings.Settings": False,
            "resize_pipeline.definitions.build_definitions": False,
        },
    ),
    "Kafka for any job": (
        "Import them from `resize_pipeline`; [kafka.md](kafka.md) has an example.",
        {
            "resize_pipeline.topics.kafka_sensor": False,
            "resize_pipeline.topics.read_messages": False,
            "resize_pipeline.resources.kafka.KafkaResource": False,
        },
    ),
    "Component": (
        "In YAML `resize_pipeline.ImageRenditions`; [components.md](components.md) says more.",
        {"resize_pipeline.component.image_renditions.ImageRenditions": False},
    ),
    "Classes that dagster.yaml names": (
        "They are configured there and not called.",
        {
            "resize_pipeline.instance.launcher.WarmRunLauncher": False,
            "resize_pipeline.instance.launcher.CheckedRunLauncher": False,
            "resize_pipeline.instance.celery_launcher.CheckedCeleryRunLauncher": False,
            "resize_pipeline.instance.run_coordinator.PromptRunCoordinator": False,
            "resize_pipeline.instance.sqlite_storage.SharedSqliteStorage": False,
            "resize_pipeline.instance.postgres_storage.PooledPostgresStorage": False,
        },
    ),
    "Errors": (
        "What the functions above raise, and what a function of your own may raise.",
        {
            "resize_pipeline.errors.ResizePipelineError": False,
            "resize_pipeline.errors.UserError": False,
            "resize_pipeline.errors.TransientError": False,
            "resize_pipeline.errors.PermanentError": False,
        },
    ),
}
"""By heading a sentence, and the objects, each with whether its members are public, too."""
INTRODUCTION = """\
# Python API

What this page names is public, and follows [Semantic Versioning](install.md#versions). Everything
else in the package may change at any time. Types are in the package (`py.typed`).

`make docs` generates this page from the docstrings.
"""


def shown(obj: griffe.Object, *, members: bool) -> str:
    """Return the Markdown of one object."""
    options: griffe2md.ConfigDict = {
        **griffe2md.default_config,
        "heading_level": 3,
        "filters": ["!^_"],
        "inherited_members": False,
        "show_bases": False,
        "show_if_no_docstring": False,
        "show_object_full_path": False,
        "show_root_full_path": False,
        "show_root_members_full_path": False,
        "show_signature": obj.is_function or members,
        "docstring_section_style": "list",
        "line_length": 100,
    }
    if not members:
        options["members"] = False
    text = griffe2md.render_object_docs(obj, options)
    # Types and attributes are links to themselves, wherever they are documented.
    while (plain := re.sub(r"\[([^\[\]]+)\]\(#[^)]*\)", r"\1", text)) != text:
        text = plain
    text = re.sub(r"<code>([^<]*)</code>", r"`\1`", text)
    # A signature without parameters repeats the heading.
    text = re.sub(r"```python\n\w+\n```\n", "", text)
    heading, _, rest = text.strip().partition("\n")
    return re.sub(r"\n{3,}", "\n\n", f"{heading}\n\n`{obj.path}`\n\n{rest}").strip()


def page() -> str:
    """Return the text of docs/api.md."""
    loader = griffe.GriffeLoader(
        search_paths=[REPOSITORY],
        docstring_parser=griffe.Parser.google,
        docstring_options={"ignore_init_summary": True},
    )
    package = loader.load("resize_pipeline")
    loader.resolve_aliases()
    parts = [INTRODUCTION]
    for heading, (sentence, objects) in PUBLIC.items():
        parts.append(f"## {heading}\n\n{sentence}\n")
        for path, members in objects.items():
            obj = package[path.removeprefix("resize_pipeline.")]
            parts.append(shown(obj, members=members) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
