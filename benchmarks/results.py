"""A report's table in docs/results.md, written by a command: `python benchmarks/results.py runs/real/report real`.

The table stands between `<!-- table NAME -->` and `<!-- end -->`, and is replaced there; `make real` does so for its
report.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from eval.metrics.judge import judge
from eval.report.tables import report_tables, table_text
from eval.storage import read_evaluation
from render.errors import InputError
from render.io import atomic_write

RESULTS = Path(__file__).parent.parent / "docs" / "results.md"


def insert_table(report: Path, name: str, page: Path = RESULTS) -> None:
    """Judge the report's files again and put their table into `page` under `name`.

    Raises:
        InputError: When the page has no place of this name, or the report cannot be read.
    """
    figures = judge(read_evaluation(report))
    table = table_text(report_tables(figures), "markdown", f"{figures.records:,} records: {figures.dataset}.")
    text = page.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise InputError(f"{page}: no place for a table; write <!-- table {name} --> and <!-- end --> there")
    with atomic_write(page) as partial:
        partial.write_text(place.sub(lambda match: f"{match[1]}{table}{match[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("report", type=Path, help="folder of a report")
    parser.add_argument("name", help="of the table in docs/results.md")
    options = parser.parse_args()
    insert_table(options.report, options.name)
