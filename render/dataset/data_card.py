"""The data card of a data set, and the counts of its shards on which it is based."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from render.io import atomic_write
from render.pages.option_words import split_words

COUNTS_KEY = b"ecg_vlm_counts"
"""The key of a shard's counts in its Parquet metadata."""

_COUNTERS = (
    "statement_counts", "dialogue_counts", "form_counts", "closed_answers", "language_counts", "provenance_counts",
    "layout_words", "style_words", "unmapped_report_lines", "unreadable_counts",
)  # fmt: skip
_OPTIONAL_COUNTER = "unreadable_counts"  # left out where it is empty
# A million machine reports have too many different lines to list; the rare ones are mostly typing errors.
_MOST_UNMAPPED = 200
_VERSIONS = ("ecg-vlm", "numpy", "pillow", "isal", "pyarrow")


_LONGEST_CELL = 200


class Counts:
    """The counts of one shard, and the pages that it leaves out."""

    def __init__(self) -> None:
        self._omissions: list[dict[str, Any]] = []
        self._counters: dict[str, Counter[str]] = {name: Counter() for name in _COUNTERS}

    def skip(self, index: int, reason: str) -> None:
        """Record that page `index` is left out."""
        self._omissions.append({"index": index, "reason": reason})

    def add(self, row: dict[str, Any], unmapped_lines: Sequence[str] = ()) -> None:
        """Count a row (see `render.dataset.rows`) and the report lines of its record that stand for no statement."""
        count = self._counters
        count["statement_counts"].update(row["statements"])
        count["layout_words"].update(split_words(row["layout"]) if row["layout"] else [])
        count["style_words"].update(word.split("=")[0] for word in split_words(row["style"]) if word)
        count["unmapped_report_lines"].update(unmapped_lines)
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
        counters = {name: counts for name, counts in self._counters.items() if counts or name != _OPTIONAL_COUNTER}
        return json.dumps({"skipped": self._omissions, **counters}, sort_keys=True)


def package_versions() -> dict[str, str]:
    """The versions of the packages on which the bytes of a page depend."""
    return {name: version(name) for name in _VERSIONS}


def summary(shards: Iterable[Path]) -> dict[str, Any]:
    """The counts of all shards together: "pages", "skipped", and a mapping for each counter of `Counts`."""
    pages, omissions = 0, []
    total: dict[str, Counter[str]] = {name: Counter() for name in _COUNTERS}
    for shard in shards:
        with shard.open("rb") as file:
            metadata = pq.read_metadata(file)
        counts = json.loads(metadata.metadata[COUNTS_KEY])
        pages += metadata.num_rows
        omissions += counts["skipped"]
        for name in _COUNTERS:
            total[name].update(counts.get(name, {}))
    lines = total.pop("unmapped_report_lines")
    if not total[_OPTIONAL_COUNTER]:
        del total[_OPTIONAL_COUNTER]
    return {
        "pages": pages,
        "skipped": omissions,
        **{name: dict(sorted(counter.items())) for name, counter in total.items()},
        "unmapped_report_lines": sum(lines.values()),
        "most_unmapped": dict(sorted(lines.items(), key=lambda item: (-item[1], item[0]))[:_MOST_UNMAPPED]),
        "versions": package_versions(),
    }


_LICENCE_NAMES = {
    "simulated": "apache-2.0", "ptbxl": "cc-by-4.0", "ptbxl-restored": "cc-by-4.0", "mimic": "odbl",
}  # fmt: skip
"""Source -> the licence of its records, as huggingface.co names it; others have their own."""

_LICENCES = {
    "simulated": "Simulated records: no patient data. Apache-2.0 like the generator.",
    "ptbxl": "Contains PTB-XL 1.0.3 (Wagner et al. 2020, CC BY 4.0): name the source when you share it.",
    "ptbxl-restored": "Contains signals restored from a derived form of PTB-XL 1.0.3 (Wagner et al. 2020, CC BY 4.0): "
    "their gain and band are estimates; name the source and say so when you share it.",
    "mimic": "Contains MIMIC-IV-ECG (Open Database License, PhysioNet terms): do not share beyond those terms.",
    "wfdb": "The licence of the records it was rendered from applies.",
    "pictures": "Made from pictures of your own: mind what may be shared, as a picture may show a name or a date.",
    "llava": "The licences of the file and of its pictures apply.",
}


def write_card(folder: Path, manifest: Mapping[str, Any], form: str = "parquet") -> None:
    """Write a data set's data card, `README.md`. form: of its files, a key of `DATA_FILES`."""
    with atomic_write(folder / "README.md") as partial:
        partial.write_text(_card(manifest, form), encoding="utf-8")


DATA_FILES = {"parquet": "data/*.parquet", "llava": "llava.json", "trl": "trl/*.parquet"}
"""The files with the dialogues in each form of a data set."""


_LLAVA_FILES = """## Files

`llava.json`: a JSON list of {dialogues} samples, one dialogue each, with the keys `id`, `image`, `conversations` \
(LLaVA's format) and `record_id`, `source`, `task`, `form`, `provenance`, `statements`, `language`.

`images/`: {pages} pages as PNG or JPEG files. The path in `image` is relative to the folder of this card, which is \
the image folder for training."""


_TRL_FILES = """## Files

`trl/*.parquet`: {dialogues} rows, one dialogue each, with the columns that TRL's trainers take (`messages`, `images`) \
and `record_id`, `source`, `task`, `form`, `provenance`, `statements`, `language`. Rows about one page follow each \
other."""


def _card(manifest: Mapping[str, Any], form: str) -> str:
    """Its header tells huggingface.co licence and languages, and plain `datasets.load_dataset(folder)` to read the data
    files and no others."""
    dialogues = sum(manifest["dialogue_counts"].values())
    is_rendered = "layout" in manifest["options"]
    labels = "statements and measurements" if is_rendered else "the labels of the pictures"
    origin = f" read from {manifest['told']}" if manifest["told"] else f" composed from {labels}"
    sources = manifest["source"].split("+")
    names = dict.fromkeys(_LICENCE_NAMES.get(source, "other") for source in sources)
    parts = [
        f"---\n{_lines('license', names)}{_lines('language', manifest['language_counts'])}"
        "task_categories:\n- visual-question-answering\ntags:\n- ecg\n"
        f"configs:\n- config_name: default\n  data_files: {DATA_FILES[form]}\n---",
        f"# ECG pages with dialogues: {manifest['source']}",
        f"{manifest['pages']} pages of {manifest['records']} records, {dialogues} dialogues{origin}; "
        f"{len(manifest['skipped'])} pages left out (reasons in `manifest.json`).",
        " ".join(filter(None, (*map(_LICENCES.get, sources), "Not for diagnosis."))),
        {"llava": _LLAVA_FILES, "trl": _TRL_FILES}.get(form, "").format(dialogues=dialogues, pages=manifest["pages"]),
        "## Options",
        ", ".join(f"{key} {value}" for key, value in manifest["options"].items()) + ".",
        ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()) + ".",
        "## Proportions",
        _table("pages whose layout says", manifest["layout_words"], manifest["pages"]),
        _table("pages whose style says", manifest["style_words"], manifest["pages"]),
        "What neither says is as usual: 25 mm/s, 10 mm/mV, a clean page on red paper." if is_rendered else "",
        _table("dialogues of task", manifest["dialogue_counts"], dialogues),
        _table("dialogues of form", manifest["form_counts"], dialogues),
        _table("answers to closed questions", manifest["closed_answers"], sum(manifest["closed_answers"].values())),
        _table("dialogues in language", manifest["language_counts"], dialogues),
        _table("who stands behind the answer", manifest["provenance_counts"], dialogues),
        *_unreadable(manifest, form),
        "## Labels",
        _table("statement", manifest["statement_counts"], manifest["pages"]),
    ]
    if manifest["unmapped_report_lines"]:
        parts += [
            f"{manifest['unmapped_report_lines']} lines of machine reports stand for no statement; the most frequent:",
            _table("line", dict(list(manifest["most_unmapped"].items())[:30]), manifest["unmapped_report_lines"]),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lines(key: str, values: Iterable[str]) -> str:
    """A list in YAML; "" for none."""
    return "".join((f"{key}:\n", *(f"- {value}\n" for value in values))) if values else ""


def _unreadable(manifest: Mapping[str, Any], form: str) -> list[str]:
    counts = manifest.get(_OPTIONAL_COUNTER)
    if not counts:
        return []
    return [
        "Some pages cannot be read, and the answers say so: another picture, a page turned or cut off"
        f"{' (column `unreadable`)' if form == 'parquet' else ''}. They carry no statements.",
        _table("pages that cannot be read", counts, manifest["pages"]),
    ]


def _table(what: str, counts: dict[str, int], total: int) -> str:
    rows = "".join(f"| {_plain(name)} | {n} | {n / max(total, 1):.1%} |\n" for name, n in counts.items())
    return f"| {what} | number | share |\n|---|---|---|\n{rows}".rstrip() if counts else ""


def _plain(text: str) -> str:
    """Text from a record in a cell: without HTML, links, further cells and control characters."""
    text = "".join(character if character.isprintable() else " " for character in text[:_LONGEST_CELL])
    return html.escape(text.replace("|", "/"), quote=False).replace("[", "\\[")
