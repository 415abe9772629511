"""`ecg-vlm digitize`: pictures of ECGs become millivolts."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.cli.arguments import Parser, add_sampling_rate, positive
from ecg_vlm.cli.progress import progress_bar
from render.errors import InputError

if TYPE_CHECKING:
    from ecg_vlm.images import InputPage

HELP = "photo, scan or PDF of an ECG -> millivolts"
DESCRIPTION = (
    "Find and straighten the page on a picture, read its leads, and write them in millivolts as WFDB, CSV and Parquet, "
    "with an overlay to look at (PNG) and what was read (JSON). What cannot be read is missing, never invented."
)
EXAMPLES = """\
  ecg-vlm digitize photo.jpg digitized
  ecg-vlm digitize scans/ report.pdf digitized --workers 2 --resume"""

SUMMARY = "digitized.json"
"""The file in OUT that lists every page with its layout, or why it was refused."""


def add_arguments(parser: Parser) -> None:
    """Pictures, folder, how many processes."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="pictures, PDFs or waveform files of ECGs, folders of them, or patterns in quotes; - for standard input",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    add_sampling_rate(parser)
    parser.add_argument("--workers", type=positive, default=1, help="processes (default 1)")
    parser.add_argument("--resume", action="store_true", help="go on in a folder: pictures that are done are kept")


def run(arguments: argparse.Namespace) -> None:
    """Digitize every page; a single file that cannot be read is an error, among several it is listed."""
    from ecg_vlm.images import PICTURE_SUFFIXES, expand_inputs
    from render.io import require_empty, write_json
    from render.workers import run_tasks

    a = arguments
    if a.out.is_file() or (a.out.suffix.lower() in PICTURE_SUFFIXES and not a.out.exists()):
        raise InputError(f"{a.out}: is the name of a file; name a folder for the results behind the pictures")
    files = _named(expand_inputs(a.images))
    if not a.resume:
        require_empty(a.out)
    a.out.mkdir(parents=True, exist_ok=True)
    tasks = [(file, name, a.out, a.sampling_rate) for file, name in files if not _is_done(file, name, a.out)]
    with progress_bar("pictures") as show:
        run_tasks(digitize_file, tasks, a.workers, lambda count: show("pictures", count, len(tasks)))
    pages = [page for _, name in files for page in _result(a.out, name)["pages"]]
    refusals = [page for page in pages if page["refusal_reason"]]
    if len(pages) == len(refusals) == 1:
        _result_file(a.out, files[0][1]).unlink()
        if not any(a.out.iterdir()):
            a.out.rmdir()
        raise InputError(refusals[0]["refusal_reason"])
    write_json(a.out / SUMMARY, {"pages": pages})
    for page in pages if len(pages) <= 20 else []:
        print(_in_words(page))
    if len(refusals) == len(pages):
        raise InputError(f"none of {len(pages)} pages can be read; {a.out / SUMMARY} says why")
    if len(pages) > 1:
        print(f"{a.out}: {len(pages) - len(refusals)} of {len(pages)} pages digitized; see {a.out / SUMMARY}")


def _named(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Files with the names of their results: their stems, or their whole names where two have one stem.

    Raises:
        InputError: Where two would have the same.
    """
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name.replace(".", "-") for file in files]
    # the name of a WFDB record is one word
    names = ["stdin" if str(file) == "-" else re.sub(r"[^-\w]", "_", n) for file, n in zip(files, names, strict=True)]
    if double := [name for name, count in Counter(names).items() if count > 1]:
        first, second = [file for file, name in zip(files, names, strict=True) if name == double[0]][:2]
        raise InputError(f"{first} and {second}: their results would have one name; digitize them into two folders")
    return list(zip(files, names, strict=True))


def _result_file(out: Path, name: str) -> Path:
    return out / f"{name}.json"


def _result(out: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(_result_file(out, name).read_text(encoding="utf-8"))
    return result


def _is_done(file: Path, name: str, out: Path) -> bool:
    """Whether OUT holds the whole result of this very file."""
    from render.io import file_digest

    if str(file) == "-" or not _result_file(out, name).is_file():
        return False
    try:
        return bool(_result(out, name)["digest"] == file_digest(file))
    except (KeyError, TypeError, ValueError, OSError):
        return False


def digitize_file(file: Path, name: str, out: Path, sampling_rate: float | None, step: Callable[[], None]) -> None:
    """Write the results of all pages of a file, and last the file that says so."""
    from render.io import file_digest, write_json

    digest = "" if str(file) == "-" else file_digest(file)
    pages = list(_pages(file, name, out, sampling_rate))
    write_json(_result_file(out, name), {"digest": digest, "pages": pages})
    step()


def _pages(file: Path, name: str, out: Path, sampling_rate: float | None) -> Iterator[dict[str, Any]]:
    """What is written of each page, or why it is refused."""
    from ecg_vlm.digitized_files import write_files
    from ecg_vlm.images import iter_pages

    try:
        for page in iter_pages(file, sampling_rate=sampling_rate):
            own = name if page.count == 1 else f"{name}-{page.number}"
            try:
                summary = write_files(_digitized(page), page.image, out, own)
            except InputError as error:
                summary = {"refusal_reason": f"{page.source}: {error}"}
            yield {"name": own, "picture": page.source, "page": page.number, "refusal_reason": "", **summary}
    except InputError as error:
        yield {"name": name, "picture": str(file), "page": 1, "refusal_reason": str(error)}


def _digitized(page: InputPage) -> Any:
    from recipes.digitizer.digitize import digitize
    from recipes.digitizer.result import page_of_record

    return digitize(page.image) if page.record is None else page_of_record(page.record)


def _in_words(page: dict[str, Any]) -> str:
    if page["refusal_reason"]:
        return f"{page['name']}: refused: {page['refusal_reason']}"
    missing = f", without {', '.join(page['missing_leads'])}" if page["missing_leads"] else ""
    rotation = f", turned by {page['rotation_degrees']} degrees" if page["rotation_degrees"] else ""
    qualities = [lead["quality"] for lead in page["leads"]]
    count, quality = len({lead["lead"] for lead in page["leads"]}), sum(qualities) / len(qualities)
    return (
        f"{page['name']}: {page['layout'] or 'waveform'}, {count} leads{missing}, "
        f"{page['mm_per_s']:g} mm/s, {page['mm_per_mv']:g} mm/mV, quality {quality:.2f}{rotation}"
    )
