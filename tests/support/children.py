"""The processes that render, among all that the tests have started."""

import psutil


def rendering_children() -> list[psutil.Process]:
    """Give those that this process has started; the servers that tests share are others."""
    found = []
    for child in psutil.Process().children():
        try:
            if "resize_pipeline.imaging.child" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
