"""The pages of PDF documents and of DICOM objects."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from ecg_vlm import pdf_process
from ecg_vlm.images import (
    MOST_PAGES,
    MOST_PIXELS,
    InputPage,
    damage_refused,
    require_few_pixels,
    require_page,
    to_8_bits,
)
from render.errors import InputError
from render.sources.dicom import read_dataset

PDF_DPI = 254
"""Ten pixels a millimetre: a line of an ECG is two to four pixels wide."""
_PDF = "application/pdf"


def pdf_pages(content: bytes, source: str, first: int = 1, *, dpi: float = PDF_DPI) -> Iterator[InputPage]:
    """The pages of a PDF from `first` on, drawn at `dpi` or, where that is more than `MOST_PIXELS`, at as many as fit.

    Drawn by a process of its own: see `ecg_vlm.pdf_process`.
    Raises `InputError` for a document that is damaged, locked by a password, or takes too long to draw.
    """
    if find_spec("pypdfium2") is None:
        raise ModuleNotFoundError("No module named 'pypdfium2'", name="pypdfium2")
    command = [sys.executable, "-m", pdf_process.__name__, *map(str, (dpi, MOST_PIXELS, MOST_PAGES, first))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_with_this_package()
    )
    assert process.stdin is not None
    writer = threading.Thread(target=_write, args=(process.stdin, content), daemon=True)
    process.stdin = None  # it is the thread's
    writer.start()
    try:
        number, count = first, first
        while number <= count:
            image, count = _next_page(process, source, number)
            yield InputPage(image, number, count, source)
            number += 1
    finally:
        process.kill()
        writer.join()
        process.communicate()


def _write(stream: IO[bytes], content: bytes) -> None:
    """Write the document to the process, which may end before it has read all of it."""
    with contextlib.suppress(OSError):
        stream.write(content)
    with contextlib.suppress(OSError):
        stream.close()


def _next_page(process: subprocess.Popen[bytes], source: str, number: int) -> tuple[Image.Image, int]:
    """The page that the process draws next, and how many there are."""
    assert process.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(pdf_process.SECONDS, end)
    timer.start()
    try:
        numbers = [int(word) for word in process.stdout.readline().split()]
        pixels = process.stdout.read(3 * numbers[1] * numbers[2]) if numbers else b""
    finally:
        timer.cancel()
    if late.is_set():
        raise InputError(
            f"{source}: page {number} of the PDF takes more than {pdf_process.SECONDS} s to draw; save it as PNG"
        )
    if not numbers:
        raise InputError(_pdf_failure(process, source, number))
    count, width, height = numbers
    return Image.frombytes("RGB", (width, height), pixels), count


def _pdf_failure(process: subprocess.Popen[bytes], source: str, number: int) -> str:
    """The message for a page that did not come."""
    _, text = process.communicate()
    if process.returncode != pdf_process.UNREADABLE:
        return f"{source}: page {number} of the PDF breaks the PDF library; save it as PNG"
    reason = text.decode(errors="replace").strip()
    mend = "remove its password" if "password" in reason.lower() else "export it again"
    if reason.startswith(pdf_process.NO_PAGE):
        mend = "choose another page"
    return f"{source}: the PDF cannot be read ({reason}); {mend}"


def _with_this_package() -> dict[str, str]:
    """The environment in which another Python finds this very package."""
    folder = str(Path(pdf_process.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}


def dicom_pages(content: bytes, source: str, first: int = 1) -> Iterator[InputPage]:
    """The images of a DICOM object, or the pages of the PDF that it carries.

    Raises `InputError` for an object without either, and for one that is damaged.
    """
    dataset = read_dataset(content, source)
    document = b""
    with damage_refused(source):  # pydicom decodes a value when it is asked for, and raises whatever is wrong with it
        if "EncapsulatedDocument" in dataset:
            kind = str(dataset.get("MIMETypeOfEncapsulatedDocument", _PDF))
            if kind != _PDF:
                raise InputError(f"{source}: the DICOM object carries a document of type {kind[:40]}; PDF can be read")
            document = bytes(dataset.EncapsulatedDocument)
        elif "PixelData" not in dataset:
            name = str(dataset.get("Modality", "unknown"))[:20]
            raise InputError(f"{source}: the DICOM object (modality {name}) holds neither image, PDF nor waveform")
    if document:
        yield from pdf_pages(document, source, first)
        return
    with damage_refused(source):
        require_few_pixels(int(dataset.Rows), int(dataset.Columns), source)
        count = min(max(int(dataset.get("NumberOfFrames", 1) or 1), 1), MOST_PAGES)
    require_page(first, count, source)
    for number in range(first, count + 1):
        with damage_refused(source):
            image = _dicom_frame(dataset, number - 1, source)
        yield InputPage(image, number, count, source)


def _dicom_frame(dataset: Any, i: int, source: str) -> Image.Image:
    from pydicom.pixels import apply_color_lut, pixel_array

    try:
        pixels = np.asarray(pixel_array(dataset, index=i))  # YBR becomes RGB in there
    except RuntimeError as error:  # what the packages at hand cannot decompress
        name = dataset.file_meta.TransferSyntaxUID.name
        raise InputError(f"{source}: its compression ({name}) cannot be read; export it uncompressed") from error
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        return Image.fromarray(to_8_bits(pixels)).convert("RGB")
    grey = to_8_bits(pixels)
    return Image.fromarray(255 - grey if kind == "MONOCHROME1" else grey).convert("RGB")
