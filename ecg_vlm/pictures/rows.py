"""Labelled pictures as rows of a data set: the same columns as rendered pages, without layout, style and geometry."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ecg_vlm.images import InputPage, open_page
from ecg_vlm.pictures.labelled_picture import LabelledPicture, PictureSource
from render.dataset.parquet import write_rows
from render.dataset.rows import Options, dialogue_column, require_known_words, schema
from render.dialogues.compose import DIALOGUE_TASKS, FORMS, Dialogue, statement_dialogues
from render.dialogues.language import language_of
from render.dialogues.wording import GERMAN_QUESTIONS, REPORT_QUESTIONS, pick_question
from render.errors import InputError
from render.io import file_digest
from render.statements import STATEMENTS
from render.workers import Workers

# What a camera or a scanner has compressed with loss does so again: as PNG, a photo would be ten times as large.
_LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".heic", ".heif", ".avif"))
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class PictureOptions:
    """What determines the bytes of a data set of pictures, besides the pictures and their labels.

    Those not listed are those of `render.dataset.rows.Options`.

    Attributes:
        width: pixels; wider pictures are scaled down to it. None: every picture keeps its size.
        lenient: list the pictures that cannot be read; otherwise stop at the first.
        straighten: in place of a picture the page drawn anew from its digitized leads, as `ask` shows it to the model;
            a picture whose leads cannot be read stays as it is.
    """

    width: int | None = None
    closed: int | None = None
    tasks: tuple[str, ...] = DIALOGUE_TASKS
    forms: tuple[str, ...] = FORMS
    seed: int = 0
    shard_size: int = 500
    lenient: bool = False
    straighten: bool = False

    def __post_init__(self) -> None:
        """Raises `InputError` for unknown tasks and forms."""
        require_known_words(self.tasks, self.forms)


class PictureRows:
    """The rows of a source of pictures, one each (`render.dataset.parquet.RowSource`)."""

    def __init__(self, source: PictureSource, options: PictureOptions) -> None:
        self.name = source.name
        self._source, self._options = source, options
        self._prevalence = source.prevalence()

    def __len__(self) -> int:
        return len(self._source)

    def schema(self) -> pa.Schema:
        """That of rendered pages without optional columns."""
        return schema(Options())

    def row(self, i: int) -> tuple[dict[str, Any], Sequence[str]]:
        """Row i; nothing is counted as unmapped. Raises `InputError` for a picture that cannot be read."""
        picture = self._source.picture(i)
        content, suffix = picture_file(picture, self._options.width, straighten=self._options.straighten)
        row = {
            "image": {"bytes": content, "path": f"{picture.record_id}{suffix}"},
            "dialogues": picture_dialogues(picture, i, self._options, self._prevalence),
            "record_id": picture.record_id,
            "source": picture.source,
            "patient_id": picture.patient_id,
            "fold": picture.fold,
            "statements": list(picture.statements),
            "report": picture.report,
            "layout": "",
            "style": "",
            "geometry": "{}",
            "seed": self._options.seed,
        }
        return row, ()


def write_pictures(
    source: PictureSource,
    out: str | Path,
    options: PictureOptions,
    *,
    workers: int | Workers = 1,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> dict[str, Any]:
    """Write every picture of `source` with its dialogues into the folder `out` and return the manifest.

    The bytes depend on the pictures, their labels and the options alone. Raises like
    `render.dataset.parquet.write_rows`; to resume, the file of the labels must be the same.
    """
    request = {
        "source": source.name,
        "records": len(source),
        "options": {name: value for name, value in asdict(options).items() if name != "straighten" or value},
        "told": source.dialogue_file,
    }
    digests = {"source": file_digest(source.index), "dialogues": ""}
    return write_rows(
        PictureRows(source, options),
        out,
        request,
        digests,
        shard_size=options.shard_size,
        lenient=options.lenient,
        workers=workers,
        resume=resume,
        progress=progress,
    )


def picture_file(picture: LabelledPicture, width: int | None, *, straighten: bool = False) -> tuple[bytes, str]:
    """The picture upright and in RGB as the content of an image file, and the file's suffix.

    It is encoded anew, so that nothing of what the file held besides (names and places in EXIF) goes along.
    Raises `InputError` for a file that cannot be read, and for one of several pages without a page's number.
    """
    image = _page_image(picture)
    if straighten:
        from ecg_vlm.page_reading import read_page  # numba and scipy

        image = read_page(InputPage(image)).view
    if width is not None and image.width > width:
        image = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS, reducing_gap=3
        )
    image = Image.fromarray(np.asarray(image))  # without the original's metadata
    out = io.BytesIO()
    if picture.path.suffix.lower() in _LOSSY_SUFFIXES:
        image.save(out, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return out.getvalue(), ".jpg"
    image.save(out, "PNG")
    return out.getvalue(), ".png"


def picture_dialogues(
    picture: LabelledPicture, i: int, options: PictureOptions, prevalence: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """The column `dialogues` of a picture: those that came with it, else its report's and its statements'.

    The report answers an open question as it is; a report composed from the statements would only repeat it.
    """
    if picture.dialogues:
        return [d for d in picture.dialogues if d["task"] in options.tasks and d["form"] in options.forms]
    rng = np.random.default_rng([options.seed, i])
    dialogues = statement_dialogues(
        picture,
        rng,
        vocabulary=[code for code in STATEMENTS if code not in picture.uncertain],
        closed=options.closed,
        prevalence=prevalence,
    )
    language = language_of(picture.report)
    if picture.report and language != "de":  # the German one is among them already
        dialogues = [dialogue for dialogue in dialogues if dialogue.task != "report"]
        dialogues.append(_report_dialogue(picture, language or "en", rng))
    elif picture.report and not dialogues:
        dialogues.append(_report_dialogue(picture, language, rng))
    return dialogue_column([d for d in dialogues if d.task in options.tasks and d.form in options.forms])


def _report_dialogue(picture: LabelledPicture, language: str, rng: np.random.Generator) -> Dialogue:
    questions = GERMAN_QUESTIONS if language == "de" else REPORT_QUESTIONS
    question = pick_question(questions, rng)
    return Dialogue("report", "open", question, picture.report, picture.statements, "human", language)


def _page_image(picture: LabelledPicture) -> Image.Image:
    """The picture's page, upright and RGB."""
    page = open_page(picture.path, picture.page)
    if picture.page is None and page.count > 1:
        raise InputError(
            f"{picture.where}: {picture.path.name} has {page.count} pages; list each page in a line of its own, with "
            f"its number in column page and an id in column id"
        )
    return page.image
