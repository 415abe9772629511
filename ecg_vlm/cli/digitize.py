"""`ecg-vlm digitize`: pictures of ECGs become millivolts."""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser, positive
from ecg_vlm.cli.progress import progress_bar
from render.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

HELP = "photo, scan or PDF of an ECG -> millivolts"
DESCRIPTION = (
    "Find and straighten the page on a picture, read its leads, and write them in millivolts as WFDB, CSV and Parquet, "
    "with an overlay to look at (PNG) and what was found (JSON). What cannot be read is missing."
)
EXAMPLES = """\
  ecg-vlm digitize photo.jpg digitized
  ecg-vlm digitize scans/ digitized --workers 2 --resume"""

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pdf")
_PDF_DPI = 300


def add_arguments(parser: Parser) -> None:
    """Pictures, folder, how many processes."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, a PDF, or a folder of them")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default 1)")
    parser.add_argument("--resume", action="store_true", help="go on with a folder that was interrupted")


def run(arguments: argparse.Namespace) -> None:
    """Digitize every picture; one alone is refused with an error, of several the refused are counted."""
    from render.io import require_empty, write_json

    a = arguments
    files = _files(a.images)
    if not a.resume:
        require_empty(a.out)
    tasks = [(file, a.out, name) for file, name in files if not (a.out / f"{name}.json").exists()]
    refused: dict[str, str] = {}
    with progress_bar("pictures") as show:
        for count, (file, lines, complaint) in enumerate(_results(tasks, a.workers), 1):
            if complaint is not None and len(files) == 1:
                raise InputError(complaint)
            if complaint is not None:
                refused[str(file)] = complaint
            for line in lines:
                print(line)
            show("pictures", count, len(tasks))
    if refused:
        write_json(a.out / "refused.json", refused)
    if len(files) > 1:
        print(f"{a.out}: {len(files) - len(refused)} of {len(files)} pictures digitized")
    if refused:
        print(f"{len(refused)} pictures refused; reasons in {a.out / 'refused.json'}")


def _files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Pictures with the names of their results. Raises `InputError` where two would have the same."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path}: no such image file")
    if not files:
        raise InputError(f"{paths[0]}: no picture in this folder ({', '.join(_PICTURES)})")
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name.replace(".", "-") for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice}: two pictures of this name; digitize them into two folders")
    return list(zip(files, names, strict=True))


Task = tuple[Path, Path, str]
Result = tuple[Path, list[str], str | None]


def _results(tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    if workers == 1 or len(tasks) < 2:
        yield from map(_digitize_file, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(tasks)), initializer=_one_thread) as pool:
        yield from pool.imap(_digitize_file, tasks)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _digitize_file(task: Task) -> Result:
    """The file, lines to print, and why it was refused."""
    from ecg_vlm.digitized_files import write_files
    from recipes.digitizer.digitize import digitize

    file, out, name = task
    lines = []
    try:
        for image, suffix in _pages(file):
            try:
                page = digitize(image)
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
            write_files(page, image, out, f"{name}{suffix}", str(file))
            quality = sum(lead.quality for lead in page.leads) / max(1, len(page.leads))
            turned = f", turned by {page.rotation_degrees} degrees" if page.rotation_degrees else ""
            lines.append(
                f"{out / (name + suffix)}.json: {page.layout}, {len({lead.lead for lead in page.leads})} leads, "
                f"{page.mm_per_s:g} mm/s, {page.mm_per_mv:g} mm/mV, quality {quality:.2f}{turned}"
            )
    except InputError as error:
        return file, lines, str(error)
    return file, lines, None


def _pages(file: Path) -> Iterator[tuple[Image.Image, str]]:
    """The picture, or each page of a PDF, with the suffix of its results' names."""
    from ecg_vlm.images import open_image

    if file.suffix.lower() != ".pdf":
        yield open_image(file), ""
        return
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        raise InputError(f"{file}: not a PDF that can be read ({error})") from error
    for number in range(len(document)):
        image = document[number].render(scale=_PDF_DPI / 72).to_pil()
        yield image, "" if len(document) == 1 else f"-{number + 1}"
