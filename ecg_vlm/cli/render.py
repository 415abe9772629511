"""`ecg-vlm render`: records, or pictures with labels, become pages and dialogues."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.cli.arguments import (
    Parser,
    add_engine,
    add_sampling_rate,
    dpi,
    folder_or_url,
    folds,
    page_width,
    positive,
    seed,
    share,
    word_list,
    workers_of,
)
from ecg_vlm.cli.progress import progress_bar
from ecg_vlm.cli.push import add_push, check_push, push
from render.errors import InputError

if TYPE_CHECKING:
    from ecg_vlm.pictures.labelled_picture import PictureSource
    from render.dataset.rows import Options
    from render.sources.registry import Source

HELP = "ECG records, or own pictures -> pages and dialogues"
DESCRIPTION = "Render records or labelled pictures as a data set of pages with dialogues, or one record as a picture."
EXAMPLES = """\
  ecg-vlm render simulated:AFIB page.png
  ecg-vlm render ptbxl:DIR wfdb:DIR pages/train --folds 1-8 --layout mixed --style mixed --workers 4
  ecg-vlm render pictures:DIR pages/own"""

_PICTURES = (".png", ".jpg", ".jpeg")
_PREVIEW_PAGES = 12
_LAYOUT, _STYLE, _WIDTH = "3x4+1R", "clean", 1120

# Options that say how a record is drawn, with their defaults: a picture is drawn already.
_RECORD_OPTIONS = {
    "layout": _LAYOUT, "style": _STYLE, "dpi": None, "per_record": 1, "mask": False, "signal": False,
    "unreadable": 0.0, "dialogues": None, "sampling_rate": None,
}  # fmt: skip
_PICTURE_FORMS = {"pictures": "pictures:DIR", "llava": "llava:FILE.json"}


def add_arguments(parser: Parser) -> None:
    """Source, folder, and what the pages look like."""
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="simulated | simulated:CODE,CODE (codes, acute, any) | ptbxl:DIR | mimic:DIR | wfdb:DIR | "
        "files:DIR | a waveform file (.hea, .dcm, .scp, .xml, .edf, .mat, .csv, .npy) | pictures:DIR | "
        "llava:FILE.json (pictures and their labels); several sources of records become one data set",
    )
    parser.add_argument(
        "out",
        type=folder_or_url,
        metavar="OUT",
        help="folder or URL (s3:// ...) of the new data set, or a .png for one page of one record",
    )
    add_sampling_rate(parser)
    parser.add_argument(
        "--limit", type=positive, help="the first N records of each source (simulated: how many, default 1000)"
    )
    parser.add_argument("--folds", type=folds, help="folds of PTB-XL or of a table of pictures, for example 1-8")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the pictures of llava:FILE.json (default: the file's)"
    )
    parser.add_argument(
        "--straighten", action="store_true", help="pictures drawn anew from their digitized leads, as ask shows them"
    )
    parser.add_argument(
        "--layout", default=_LAYOUT, help="page layout, such as 6x2+1R,cabrera,50mm/s or mixed (default 3x4+1R)"
    )
    parser.add_argument(
        "--style", default=_STYLE, help="look of the page, such as scan, photo,green,dots or mixed (default clean)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--width", type=page_width, help="page width in pixels (default 1120; nano's own is 784); of pictures, the most"
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
        "--dialogues",
        type=Path,
        metavar="FILE.json",
        help="ECGInstruct or LLaVA JSON that the pages get in place of composed dialogues",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "llava", "trl"),
        default="parquet",
        help="llava: llava.json and images (ECGInstruct); trl: a row for each dialogue, as TRL's trainers take it",
    )
    parser.add_argument("--preview", action="store_true", help="draw twelve of the pages to OUT-preview.png, and stop")
    parser.add_argument("--shard-size", type=positive, default=500, help="pages per Parquet file (default 500)")
    add_engine(
        parser,
        workers="processes (default 1); with --engine ray the most shards at once",
        ray="ray: a Ray cluster makes the shards, with the same bytes; its nodes see SOURCE and OUT at the same paths",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of simulated records, mixed looks and questions")
    parser.add_argument(
        "--lenient", action="store_true", help="draw dead leads and short records as they are, skip unreadable ones"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a data set that was interrupted")
    add_push(parser, "--push-to-hub", "data set")


def run(arguments: argparse.Namespace) -> None:
    """Render a data set, a preview of it, or one page of the first record when `out` is a .png or .jpg."""
    from ecg_vlm.images import PICTURE_SUFFIXES
    from render.dataset.rows import Options
    from render.io import is_url
    from render.sources.registry import PICTURE_KINDS, open_source

    a = arguments
    if is_url(a.out) and (a.push or a.format != "parquet"):
        raise InputError(
            f"{a.out}: a URL takes a data set as Parquet only; name a folder for --format and --push-to-hub"
        )
    check_push(a, is_folder=not a.preview and a.out.suffix.lower() not in _PICTURES)
    kind, colon, path = a.source[0].partition(":")
    if colon and kind in PICTURE_KINDS and len(a.source) == 1:
        _render_pictures(a, kind, path)
        return
    if a.straighten:
        raise InputError(
            f"--straighten: source {', '.join(a.source)} has no pictures; only pictures: and llava: have, leave it out"
        )
    if a.images is not None:
        raise InputError(
            f"--images: source {', '.join(a.source)} has no pictures; only llava:FILE.json has, so leave it out"
        )
    options = Options(
        layout=a.layout,
        style=a.style,
        width=a.width or _WIDTH,
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
    if suffix not in _PICTURES and suffix in {*PICTURE_SUFFIXES, ".svg"}:
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
    from render.dataset.rows import make_row

    pages = len(source) * options.per_record
    _write_preview(out, pages, lambda i: make_row(source.read(i // options.per_record), i, options))


def _write_preview(out: Path, pages: int, row: Callable[[int], dict[str, Any]]) -> None:
    from render.dataset.contact_sheet import contact_sheet
    from render.io import atomic_write, require_empty

    file = out if out.suffix.lower() == ".png" else out.with_name(f"{out.name}-preview.png")
    require_empty(file)
    numbers = sorted({k * pages // _PREVIEW_PAGES for k in range(_PREVIEW_PAGES)})
    with progress_bar("pages") as show:
        rows = []
        for count, i in enumerate(numbers, 1):
            rows.append(row(i))
            show("pages", count, len(numbers))
    with atomic_write(file) as partial:
        partial.write_bytes(contact_sheet(rows))
    print(f"{file}: {len(rows)} of {pages} pages; the same command without --preview makes them all")


def _render_pictures(a: argparse.Namespace, kind: str, path: str) -> None:
    """Labelled pictures as a data set, or a preview of it."""
    from ecg_vlm.pictures.rows import PictureOptions, PictureRows, write_pictures

    source = _open_pictures(a, kind, path)
    options = PictureOptions(
        width=a.width,
        closed=a.closed,
        seed=a.seed,
        shard_size=a.shard_size,
        lenient=a.lenient,
        straighten=a.straighten,
        **{name: words for name, words in (("tasks", a.tasks), ("forms", a.forms)) if words},
    )
    if a.preview:
        rows = PictureRows(source, options)
        _write_preview(a.out, len(rows), lambda i: rows.row(i)[0])
        return
    with workers_of(a) as workers, progress_bar("pages") as show:
        manifest = write_pictures(
            source,
            a.out,
            options,
            workers=workers,
            resume=a.resume,
            progress=lambda count, total: show("pages", count, total),
        )
    _finish(a, manifest)


def _open_pictures(a: argparse.Namespace, kind: str, path: str) -> PictureSource:
    """The pictures that the arguments name. Raises `InputError` for options that only records have."""
    from ecg_vlm.pictures.llava_file import LlavaPictures
    from ecg_vlm.pictures.picture_table import PictureTable
    from render.io import is_url, user_path

    for name, default in _RECORD_OPTIONS.items():
        if getattr(a, name) != default:
            raise InputError(
                f"--{name.replace('_', '-')}: source {a.source[0]} holds pictures, not records; leave it out"
            )
    if a.out.suffix.lower() in _PICTURES and not a.preview:
        raise InputError(f"{a.out}: pictures are written into a folder; name one, or add --preview")
    if not path:
        raise InputError(f"source {kind}: the path is missing; write {_PICTURE_FORMS[kind]}")
    if is_url(user_path(path)):
        raise InputError(f"source {a.source[0]}: pictures are read from a disk; download them")
    if kind == "llava":
        if a.folds is not None:
            raise InputError("--folds: LLaVA files have no folds; leave --folds out")
        return LlavaPictures(user_path(path), a.images, limit=a.limit, lenient=a.lenient)
    if a.images is not None:
        raise InputError("--images: the pictures of pictures:DIR lie beside their table; leave --images out")
    return PictureTable(user_path(path), a.folds, limit=a.limit, lenient=a.lenient)


def _render_all(a: argparse.Namespace, source: Source, options: Options) -> None:
    from render.dataset.llava import LlavaDialogues
    from render.dataset.parquet import write_dataset

    dialogues = LlavaDialogues(a.dialogues, source.name) if a.dialogues else None
    with workers_of(a) as workers, progress_bar("pages") as show:
        manifest = write_dataset(
            source,
            a.out,
            options,
            dialogue_source=dialogues,
            workers=workers,
            resume=a.resume,
            progress=lambda count, total: show("pages", count, total),
        )
    _finish(a, manifest)


def _finish(a: argparse.Namespace, manifest: Mapping[str, Any]) -> None:
    """Write the data set in the other format where asked for, and print what it holds."""
    from render.dataset.data_card import write_card
    from render.dataset.llava import export_llava
    from render.dataset.trl import export_trl
    from render.io import remove_folder

    export, result = {"llava": (export_llava, a.out / "llava.json"), "trl": (export_trl, a.out / "trl")}.get(
        a.format, (None, a.out)
    )
    if export is not None and (a.out / "data").is_dir():
        with progress_bar("images") as show:
            export(a.out, a.out, lambda count, total: show("images", count, total))
        write_card(a.out, manifest, a.format)
        remove_folder(a.out / "data")
    print(f"{result}: {manifest['pages']} pages, {sum(manifest['dialogue_counts'].values())} dialogues")
    if manifest["skipped"]:
        print(f"{len(manifest['skipped'])} pages left out; reasons in {a.out / 'manifest.json'}")
    push(a, "dataset")
