"""`ecg-vlm render`: records become pages and dialogues."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser, add_sampling_rate, dpi, folds, page_width, positive, seed, share, word_list
from ecg_vlm.cli.progress import progress_bar
from render.errors import InputError

if TYPE_CHECKING:
    from render.dataset.rows import Options
    from render.sources.registry import Source

HELP = "ECG records -> pages and dialogues"
DESCRIPTION = "Render records as a data set of pages with dialogues, or one record as a picture."
EXAMPLES = """\
  ecg-vlm render simulated:AFIB page.png
  ecg-vlm render ptbxl:DIR pages/train --folds 1-8 --layout mixed --style mixed --workers 4"""

_PICTURES = (".png", ".jpg", ".jpeg")
_PREVIEW_PAGES = 12


def add_arguments(parser: Parser) -> None:
    """Source, folder, and what the pages look like."""
    parser.add_argument(
        "source",
        help="simulated | simulated:CODE,CODE | ptbxl:DIR | mimic:DIR | wfdb:DIR | files:DIR | a waveform file (.hea, "
        ".dcm, .scp, .xml, .edf, .mat, .csv, .npy)",
    )
    parser.add_argument("out", type=Path, help="folder of the new data set, or a .png for one page of one record")
    add_sampling_rate(parser)
    parser.add_argument("--limit", type=positive, help="the first N records (simulated: how many, default 1000)")
    parser.add_argument("--folds", type=folds, help="PTB-XL folds, for example 1-8")
    parser.add_argument(
        "--layout", default="3x4+1R", help="page layout, such as 6x2+1R,cabrera,50mm/s or mixed (default 3x4+1R)"
    )
    parser.add_argument(
        "--style", default="clean", help="look of the page, such as scan, photo,green,dots or mixed (default clean)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--width", type=page_width, default=1120, help="page width in pixels (default 1120; nano's own is 784)"
    )
    size.add_argument("--dpi", type=dpi, help="resolution instead of a width: the paper's true size at so many dpi")
    parser.add_argument("--per-record", type=positive, default=1, help="pages of each record (default 1)")
    parser.add_argument(
        "--mask", action="store_true", help="add a mask to each page: 0 paper, 1 grid, 2 print, 3 signal"
    )
    parser.add_argument(
        "--signal", action="store_true", help="add each record's signal, for a recipe with train.reading"
    )
    parser.add_argument("--tasks", type=word_list, help="of features, rhythm, morphology, report (default all)")
    parser.add_argument("--forms", type=word_list, help="of closed, choice, fill, open (default all)")
    parser.add_argument("--closed", type=positive, help="yes/no questions per page (default: as many no as yes)")
    parser.add_argument(
        "--unreadable",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of pages that cannot be read (no ECG, turned, cut off) and whose answers say so (default 0)",
    )
    parser.add_argument(
        "--dialogues", type=Path, help="ECGInstruct or LLaVA JSON that the pages get in place of composed dialogues"
    )
    parser.add_argument(
        "--format", choices=("parquet", "llava"), default="parquet", help="llava: llava.json and images (ECGInstruct)"
    )
    parser.add_argument("--preview", action="store_true", help="draw twelve of the pages to OUT-preview.png, and stop")
    parser.add_argument("--shard-size", type=positive, default=500, help="pages per Parquet file (default 500)")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default 1)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of simulated records, mixed looks and questions")
    parser.add_argument(
        "--lenient", action="store_true", help="draw dead leads and short records as they are, skip unreadable ones"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a data set that was interrupted")


def run(arguments: argparse.Namespace) -> None:
    """Render a data set, a preview of it, or one page of the first record when `out` is a .png or .jpg."""
    from ecg_vlm.images import PICTURE_SUFFIXES
    from render.dataset.rows import Options
    from render.sources.registry import open_source

    a = arguments
    options = Options(
        layout=a.layout,
        style=a.style,
        width=a.width,
        dpi=a.dpi,
        per_record=a.per_record,
        mask=a.mask,
        signal=a.signal,
        closed=a.closed,
        seed=a.seed,
        shard_size=a.shard_size,
        lenient=a.lenient,
        unreadable=a.unreadable,
        **{name: words for name, words in (("tasks", a.tasks), ("forms", a.forms)) if words},
    )
    suffix = a.out.suffix.lower()
    if suffix not in _PICTURES and suffix in PICTURE_SUFFIXES:
        raise InputError(f"{a.out}: pages are written as .png or .jpg; name one of these, or a folder")
    source = open_source(a.source, seed=a.seed, limit=a.limit, folds=a.folds, sampling_rate=a.sampling_rate)
    if a.preview:
        _preview(a.out, source, options)
    elif suffix in _PICTURES:
        _render_one(a.out, source, options)
    else:
        _render_all(a, source, options)


def _render_one(out: Path, source: Source, options: Options) -> None:
    """The first record as a picture of the kind that `out` is named for."""
    from PIL import Image

    from render.dataset.rows import make_picture
    from render.io import atomic_write, require_empty

    require_empty(out)
    record = source.read(0)
    picture, style = make_picture(record, 0, options)
    with atomic_write(out) as partial:
        if picture.suffix == out.suffix.lower().replace("jpeg", "jpg"):
            partial.write_bytes(picture.data)
        else:
            Image.open(io.BytesIO(picture.data)).convert("RGB").save(partial)
    print(f"{out}: record {record.record_id}; {', '.join(record.statements) or 'no statements known'}; {style}")


def _preview(out: Path, source: Source, options: Options) -> None:
    """A few of the pages that a data set would hold, spread over it, questions beside, as one picture."""
    from render.dataset.contact_sheet import contact_sheet
    from render.dataset.rows import make_row
    from render.io import atomic_write, require_empty

    file = out if out.suffix.lower() == ".png" else out.with_name(f"{out.name}-preview.png")
    require_empty(file)
    pages = len(source) * options.per_record
    numbers = sorted({k * pages // _PREVIEW_PAGES for k in range(_PREVIEW_PAGES)})
    with progress_bar("pages") as show:
        rows = []
        for count, i in enumerate(numbers, 1):
            rows.append(make_row(source.read(i // options.per_record), i, options))
            show("pages", count, len(numbers))
    with atomic_write(file) as partial:
        partial.write_bytes(contact_sheet(rows))
    print(f"{file}: {len(rows)} of {pages} pages; the same command without --preview makes them all")


def _render_all(a: argparse.Namespace, source: Source, options: Options) -> None:
    from render.dataset.data_card import write_card
    from render.dataset.llava import LlavaDialogues, export_llava
    from render.dataset.parquet import write_dataset
    from render.io import remove_folder

    dialogues = LlavaDialogues(a.dialogues, source.name) if a.dialogues else None
    llava = a.out / "llava.json"
    with progress_bar("pages") as show:
        manifest = write_dataset(
            source,
            a.out,
            options,
            dialogue_source=dialogues,
            workers=a.workers,
            resume=a.resume,
            progress=lambda count, total: show("pages", count, total),
        )
        if a.format == "llava" and not llava.exists():
            export_llava(a.out, a.out, lambda count, total: show("images", count, total))
    if a.format == "llava":
        write_card(a.out, manifest, llava=True)
        if (a.out / "data").is_dir():
            remove_folder(a.out / "data")
    result = llava if a.format == "llava" else a.out
    print(f"{result}: {manifest['pages']} pages, {sum(manifest['dialogue_counts'].values())} dialogues")
    if manifest["skipped"]:
        print(f"{len(manifest['skipped'])} pages left out; reasons in {a.out / 'manifest.json'}")
