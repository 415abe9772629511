"""From an upload to pages that were read. What a reading process does; nothing is written to disk.

An upload is what its first bytes say, whatever its name and its media type claim (`ecg_vlm.images`).
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ecg_vlm.digitized_files import overlay
from ecg_vlm.images import MOST_BYTES, InputPage, every_page, pages_in
from ecg_vlm.page_reading import PageReading, read_page
from ecg_vlm.serve.correction import correct
from ecg_vlm.serve.schema import Correction, Upload
from recipes.digitizer.digitize import digitize
from recipes.digitizer.result import DigitizedPage, page_of_record
from render.errors import InputError
from render.negatives.blank import is_blank

_THUMBNAIL_PX = 320
_THUMBNAIL_DPI = 72


@dataclass(frozen=True, eq=False)
class ServedPage:
    """A page that was read.

    Attributes:
        page: without its picture, which is large.
        reading: with the view that a model is shown.
        picture: width, height and corners of the sheet, before a correction, as the API gives them.
        as_read: the overlay as a data URI; "" unless asked for.
    """

    page: InputPage
    reading: PageReading
    picture: dict[str, Any]
    as_read: str = ""


@dataclass(frozen=True, eq=False)
class DigitizedUpload:
    """A page of an upload in millivolts; None, and why, where it cannot be read."""

    source: str
    number: int
    count: int
    page: DigitizedPage | None
    refusal_reason: str = ""


def upload_content(upload: Upload) -> bytes:
    """The bytes of a data URI.

    Raises:
        InputError: For any other address, and for what is not base64.
    """
    name = upload_name(upload)
    head, comma, text = upload.data.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise InputError(f"{name}: data must be a data URI, data:image/jpeg;base64,...; addresses are not fetched")
    if len(text) * 3 // 4 > MOST_BYTES:
        raise InputError(f"{name}: more than {MOST_BYTES >> 20} MiB; scale the image down first")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: the data URI is not base64; encode the file again") from error
    if not content:
        raise InputError(f"{name}: the file is empty; export it again")
    return content


def upload_name(upload: Upload) -> str:
    """The last part of an upload's name, without what cannot be printed."""
    name = "".join(c if c.isprintable() else "_" for c in PurePosixPath(upload.name.replace("\\", "/")).name)
    return name[:200] or "upload"


def read_upload(
    upload: Upload, page: int | None, first: int, correction: Correction | None, as_is: bool, view: bool
) -> ServedPage | None:
    """Page `page` of an upload, or where that is None the first from `first` on that is not blank; None: no more.

    Raises:
        InputError: For what cannot be opened, and for a page that is not there.
    """
    with _packages_required(upload):
        original = _page(upload, page, first)
        if original is None:
            return None
        image = _apply_correction(original, correction)
        reading = read_page(replace(original, image=image), as_is=as_is)
        return ServedPage(
            replace(original, image=reading.view, record=None),
            reading,
            {
                "width": original.image.width,
                "height": original.image.height,
                "corners": None if correction else _corners(reading, image),
            },
            _as_read(reading, image) if view else "",
        )


def thumbnails(upload: Upload) -> list[dict[str, Any]]:
    """Each page's number, size, whether it is blank, and a small picture of it."""
    with _packages_required(upload):
        content, name = upload_content(upload), upload_name(upload)
        if content[:1024].lstrip().startswith(b"%PDF-"):
            from ecg_vlm.documents import PDF_DPI, pdf_pages

            scale = PDF_DPI / _THUMBNAIL_DPI
            return [_thumbnail(page, scale) for page in pdf_pages(content, name, dpi=_THUMBNAIL_DPI)]
        return [_thumbnail(page, 1.0) for page in every_page(content, name, sampling_rate=upload.sampling_rate)]


def _thumbnail(page: InputPage, scale: float) -> dict[str, Any]:
    small = page.image.copy()
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return {
        "number": page.number,
        "thumbnail": _data_uri(small, "jpeg"),
        "blank": is_blank(page.image),
        "width": round(page.image.width * scale),
        "height": round(page.image.height * scale),
    }


def digitize_upload(
    upload: Upload, page: int | None, first: int, correction: Correction | None
) -> DigitizedUpload | None:
    """Page `page` of an upload in millivolts, or the first from `first` on that is not blank; None: no more.

    Raises:
        InputError: For what cannot be opened, and for a page that is not there. Why a page cannot be read, the result
            says.
    """
    with _packages_required(upload):
        original = _page(upload, page, first)
        if original is None:
            return None
        place = (original.source, original.number, original.count)
        if original.record is not None:
            return DigitizedUpload(*place, page_of_record(original.record))
        try:
            return DigitizedUpload(*place, digitize(_apply_correction(original, correction)))
        except InputError as error:
            return DigitizedUpload(*place, None, str(error))


@contextmanager
def _packages_required(upload: Upload) -> Iterator[None]:
    """A package that is not installed is the server's lack: one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{upload_name(upload)}: this server lacks {error.name}, which reads such files; send a PNG or JPEG"
        ) from error


def _page(upload: Upload, number: int | None, first: int) -> InputPage | None:
    content, name = upload_content(upload), upload_name(upload)
    pages = pages_in(content, name, sampling_rate=upload.sampling_rate, first=number or first)
    page = next(pages, None)
    if number and (page is None or page.number != number):
        raise InputError(f"{name}: page {number} is blank; choose another page")
    return page


def _apply_correction(page: InputPage, correction: Correction | None) -> Image.Image:
    if not correction:
        return page.image
    if page.record is not None:
        raise InputError(f"{page.source}: a waveform has no picture to correct; leave out the correction")
    return correct(page.image, correction)


def _corners(reading: PageReading, image: Image.Image) -> list[list[float]] | None:
    """The sheet's corners on the picture, from its top left clockwise; None where it was not found."""
    if reading.page is None or not len(reading.page.outline):
        return None
    outline = reading.page.outline
    corners = np.clip(outline[:: len(outline) // 4], 0, image.size)  # the grid may go on beyond the picture
    return [[round(x, 1), round(y, 1)] for x, y in corners.tolist()]


def _as_read(reading: PageReading, image: Image.Image) -> str:
    return _data_uri(image if reading.page is None else overlay(reading.page, image), "png")


def _data_uri(image: Image.Image, form: str) -> str:
    stream = io.BytesIO()
    image.save(stream, form, **({"compress_level": 1} if form == "png" else {"quality": 80}))
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"
