"""What a data set says of itself: what its shards count, and the data card made from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from render.pages.option_words import split_words
from render.record import EcgRecord

COUNTS_KEY = b"ecg_vlm_counts"
"""Where a shard's Parquet metadata hold its counts."""

_COUNTED = (
    "statement_counts", "dialogue_counts", "form_counts", "closed_answers", "language_counts", "provenance_counts",
    "layout_words", "style_words", "unmapped_report_lines", "unreadable_counts",
)  # fmt: skip
_ONLY_WHERE_ASKED = "unreadable_counts"  # left out where there are none
# Of a million machine reports there are too many different lines to list; the rare ones would be single typing errors.
_MOST_UNMAPPED = 200
_VERSIONS = ("ecg-vlm", "numpy", "pillow", "isal", "pyarrow")


class Counts:
    """What one shard holds and what it left out."""

    def __init__(self) -> None:
        self.skipped: list[dict[str, Any]] = []
        self.counted: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}

    def skip(self, index: int, reason: str) -> None:
        """Page `index` was left out."""
        self.skipped.append({"index": index, "reason": reason})

    def add(self, row: dict[str, Any], record: EcgRecord) -> None:
        """Count a row (see `render.dataset.rows`) and the lines of its record's report that stand for no statement."""
        count = self.counted
        count["statement_counts"].update(row["statements"])
        count["layout_words"].update(split_words(row["layout"]) if row["layout"] else [])
        count["style_words"].update(word.split("=")[0] for word in split_words(row["style"]) if word)
        count["unmapped_report_lines"].update(record.unmapped_lines)
        count["unreadable_counts"].update([row["unreadable"]] if row.get("unreadable") else [])
        for dialogue in row["dialogues"]:
            count["dialogue_counts"][dialogue["task"]] += 1
            count["form_counts"][dialogue["form"]] += 1
            count["language_counts"][dialogue["language"]] += 1
            count["provenance_counts"][dialogue["provenance"]] += 1
            if dialogue["form"] == "closed" and not row.get("unreadable"):
                count["closed_answers"][dialogue["messages"][-1]["content"]] += 1

    def to_json(self) -> str:
        """For the shard's metadata; `summary` reads it."""
        counted = {name: counts for name, counts in self.counted.items() if counts or name != _ONLY_WHERE_ASKED}
        return json.dumps({"skipped": self.skipped, **counted}, sort_keys=True)


def summary(shards: Iterable[Path]) -> dict[str, Any]:
    """The counts of all shards together: pages, skipped, and a mapping for each of what `Counts` counts."""
    pages, skipped = 0, []
    total: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for shard in shards:
        metadata = pq.read_metadata(shard)
        counted = json.loads(metadata.metadata[COUNTS_KEY])
        pages += metadata.num_rows
        skipped += counted["skipped"]
        for name in _COUNTED:
            total[name].update(counted.get(name, {}))
    lines = total.pop("unmapped_report_lines")
    if not total[_ONLY_WHERE_ASKED]:
        del total[_ONLY_WHERE_ASKED]
    return {
        "pages": pages,
        "skipped": skipped,
        **{name: dict(sorted(counts.items())) for name, counts in total.items()},
        "unmapped_report_lines": sum(lines.values()),
        "most_unmapped": dict(sorted(lines.items(), key=lambda item: (-item[1], item[0]))[:_MOST_UNMAPPED]),
        "versions": {name: version(name) for name in _VERSIONS},
    }


_LICENCES = {
    "simulated": "Simulated records: no patient data. Apache-2.0 like the generator.",
    "ptbxl": "Contains PTB-XL 1.0.3 (Wagner et al. 2020, CC BY 4.0): name the source when you share it.",
    "mimic": "Contains MIMIC-IV-ECG (Open Database License, PhysioNet terms): do not share beyond those terms.",
    "wfdb": "The licence of the records it was rendered from applies.",
}


def card(manifest: dict[str, Any]) -> str:
    """The data card; its header makes plain `datasets.load_dataset(folder)` find the shards and nothing else."""
    dialogues = sum(manifest["dialogue_counts"].values())
    told = f" read from {manifest['told']}" if manifest["told"] else " composed from statements and measurements"
    parts = [
        "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---",
        f"# ECG pages with dialogues: {manifest['source']}",
        f"{manifest['pages']} pages of {manifest['records']} records, {dialogues} dialogues{told}; "
        f"{len(manifest['skipped'])} pages left out (reasons in `manifest.json`).",
        f"{_LICENCES.get(manifest['source'], '')} Not for diagnosis.",
        "## Options",
        ", ".join(f"{key} {value}" for key, value in manifest["options"].items()) + ".",
        ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()) + ".",
        "## Proportions",
        _table("pages whose layout says", manifest["layout_words"], manifest["pages"]),
        _table("pages whose style says", manifest["style_words"], manifest["pages"]),
        "What neither says is as usual: 25 mm/s, 10 mm/mV, a clean page on red paper.",
        _table("dialogues of task", manifest["dialogue_counts"], dialogues),
        _table("dialogues of form", manifest["form_counts"], dialogues),
        _table("answers to closed questions", manifest["closed_answers"], sum(manifest["closed_answers"].values())),
        _table("dialogues in language", manifest["language_counts"], dialogues),
        _table("who stands behind the answer", manifest["provenance_counts"], dialogues),
        *_unreadable(manifest),
        "## Labels",
        _table("statement", manifest["statement_counts"], manifest["pages"]),
    ]
    if manifest["unmapped_report_lines"]:
        parts += [
            f"{manifest['unmapped_report_lines']} lines of machine reports stand for no statement; the most frequent:",
            _table("line", dict(list(manifest["most_unmapped"].items())[:30]), manifest["unmapped_report_lines"]),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _unreadable(manifest: dict[str, Any]) -> list[str]:
    counts = manifest.get(_ONLY_WHERE_ASKED)
    if not counts:
        return []
    return [
        "Some pages cannot be read, and the answers say so: another picture, a page turned or cut off (column "
        "`unreadable`). They carry no statements.",
        _table("pages that cannot be read", counts, manifest["pages"]),
    ]


def _table(what: str, counts: dict[str, int], total: int) -> str:
    rows = "".join(f"| {name.replace('|', '/')} | {n} | {n / max(total, 1):.1%} |\n" for name, n in counts.items())
    return f"| {what} | number | share |\n|---|---|---|\n{rows}".rstrip() if counts else ""
