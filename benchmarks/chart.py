"""How the benchmarks' charts are written."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG: text stays text, and the file is the same for the same figures."""
    for plot in figure.axes:
        plot.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "resize_pipeline"}):
        figure.savefig(path, metadata={"Date": None})
