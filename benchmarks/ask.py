"""Seconds that a question takes from a cold start: `python benchmarks/ask.py [PAGE ...] [--runs N]`.

Each run is `ecg-vlm ask PAGE "What is the rhythm?"` in a fresh process: Python, imports, model, picture, answer.
Without PAGE, it asks about a simulated page in each style of `render.pages.augment.pipeline.PRESETS`. Prints the median
and the worst wall and CPU time (user and system) of each page, and exits 1 when a median is over the limit of 3 s wall.
The limit is for two free cores; the files are in the system's cache after the first run, which is not counted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 3.0
QUESTION = "What is the rhythm?"
_COMMAND = (sys.executable, "-c", "import sys; from ecg_vlm.cli import main; sys.exit(main())")


def main() -> int:
    """Measure, print a table; 1 when a median is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="PNG or JPEG (default: one of each look)")
    parser.add_argument("--runs", type=int, default=5, help="fresh processes per page (default 5)")
    a = parser.parse_args()
    if a.runs < 1:
        parser.error("--runs: at least 1")
    with tempfile.TemporaryDirectory() as folder:
        return print_times(a.pages or render_pages(Path(folder)), a.runs)


def print_times(pages: Sequence[Path], runs: int) -> int:
    seconds(pages[0])
    print(f"{'page':<20}{'wall s':>8}{'worst':>8}{'CPU s':>8}{'worst':>8}")
    slow = []
    for page in pages:
        walls, cpus = zip(*(seconds(page) for _ in range(runs)), strict=True)
        wall = statistics.median(walls)
        print(f"{page.stem:<20}{wall:8.2f}{max(walls):8.2f}{statistics.median(cpus):8.2f}{max(cpus):8.2f}", flush=True)
        if wall > LIMIT_S:
            slow.append(page.stem)
    if slow:
        print(f"over {LIMIT_S:g} s: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


def render_pages(folder: Path) -> list[Path]:
    """One simulated page in each style, as PNG files in `folder`."""
    from render.pages.augment.pipeline import PRESETS

    pages = [folder / f"{style}.png" for style in PRESETS]
    for style, page in zip(PRESETS, pages, strict=True):
        subprocess.run(
            [*_COMMAND, "render", "simulated", page, "--style", style], check=True, stdout=subprocess.DEVNULL
        )
    return pages


def seconds(page: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one question in a fresh process. Raises when the command fails or says nothing."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.run([*_COMMAND, "ask", page, QUESTION], check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not process.stdout.strip():
        raise RuntimeError(f"{page}: no answer")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
