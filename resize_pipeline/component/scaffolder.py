"""Writes the first defs.yaml of a component: `dg scaffold defs`."""

import re
from pathlib import Path
from typing import Any

import dagster as dg

from resize_pipeline.settings.base import DEFAULT_PIPELINE_NAME
from resize_pipeline.validators import checked_pipeline_name

NAME_MAX = 20
"""Longest name of a pipeline, because of MinIO's access keys."""
_TEMPLATE = Path(__file__).with_name("defs.yaml.template")


class ImageRenditionsScaffolder(dg.Scaffolder[Any]):
    """Writes a commented defs.yaml, whose names follow that of its folder."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the file, or for `--format python` Dagster's usual component.py."""
        if request.scaffold_format == "python":
            dg.scaffold_component(request)
            return
        folder = request.target_path.parent if request.append else request.target_path
        name = pipeline_name(folder.name)
        values = {
            "TYPE": request.type_name,
            "NAME": name,
            "PREFIX": name.replace("-", "_").upper(),
        }
        text = re.sub("|".join(values), lambda found: values[found[0]], _TEMPLATE.read_text())
        if request.append:
            with request.target_path.open("a") as file:
                file.write(f"---\n{text}")
        else:
            (folder / "defs.yaml").write_text(text)


def pipeline_name(folder: str) -> str:
    """Return a name for the pipeline in a folder: that of the folder, if it can be one."""
    name = re.sub("[^a-z0-9]+", "-", folder.lower()).strip("-")
    try:
        checked_pipeline_name(name)
    except ValueError:
        return f"images-{name}"[:NAME_MAX].strip("-")
    return "images" if name == DEFAULT_PIPELINE_NAME else name
