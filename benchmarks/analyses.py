"""What the built-in analyses cost: CPU of rendering with all of them against without, side by side.

`python -m benchmarks.analyses PICTURE [PICTURE ...]` prints the median ratio for each picture.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.analyses import BUILT_IN, Analysis
from resize_pipeline.renditions.file import load_renditions

REPOSITORY = Path(__file__).parents[1]
ROUNDS = 60
PIXELS_MAX = 100_000_000
ALL = tuple(Analysis(name=name) for name in BUILT_IN)


def main() -> None:
    """Measure each picture and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    renditions = load_renditions(REPOSITORY / "renditions.yaml", "images")
    print("| picture | ms of CPU without | with | ratio |\n| --- | --- | --- | --- |")
    for picture in parser.parse_args().pictures:
        data = picture.read_bytes()

        def cpu_s(analyses: Sequence[Analysis], data: bytes = data) -> float:
            before = time.process_time()
            render(data, renditions, max_pixels=PIXELS_MAX, analyses=analyses)
            return time.process_time() - before

        cpu_s(ALL)
        pairs = [(cpu_s(()), cpu_s(ALL)) for _ in range(ROUNDS)]
        without, with_all = (statistics.median(one) for one in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {picture.name} | {without * 1e3:.1f} | {with_all * 1e3:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
