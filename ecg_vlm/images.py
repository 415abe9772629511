"""From whatever a person has to pages: upright RGB images on white paper. Free of torch, so that it refuses at once.

Pillow reads PNG, JPEG, TIFF, WebP, BMP and GIF, pillow-heif HEIC, `ecg_vlm.documents` PDF and DICOM. A file that holds
a waveform in place of an image (`render.sources.waveform_file`) is drawn as a clean page.
"""

from __future__ import annotations

import glob
import hashlib
import io
import logging
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from render.errors import InputError
from render.negatives.blank import is_blank
from render.record import EcgRecord

# 64 megapixels: an A3 page at 600 dpi is 70 Mpx, a phone photo 12-50. A larger "image" is a decompression bomb.
MOST_PIXELS = 64_000_000
_MOST_IN_MEMORY = 32_000_000
MOST_PAGES = 100  # of one file; what follows is left out
MOST_BYTES = 256 << 20  # of one file: it is decoded from memory

STDIN = "-"
"""The path that stands for standard input."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # Python would print what Pillow logs of a damaged file

PICTURE_SUFFIXES = frozenset(
    (
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".gif", ".heic", ".heif",
        ".avif", ".pdf", ".dcm", ".dicom",
    )
)  # fmt: skip
"""How the names of files end that `iter_pages` reads as pictures."""

# Named, as Pillow would else try 40 formats, and start Ghostscript for PostScript called page.png. JPEG includes MPO.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "JPEG2000")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_DEPTHS = (0xFF, 0x3FF, 0xFFF, 0x3FFF, 0xFFFF)  # white in 8, 10, 12, 14 and 16 bits
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for inverted grey

# What people take for pictures: first bytes, and what to do.
_OTHER_FORMATS = (
    (b"%!PS", "PostScript; save it as PDF or PNG"),
    (b"<svg", "an SVG drawing; save it as PDF or PNG"),
    (b"PK\x03\x04", "a ZIP archive or an Office document; unpack it, or save it as PDF"),
    (b"\xd0\xcf\x11\xe0", "an Office document; save it as PDF"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
)
_PICTURES_WORK = "PNG, JPEG, TIFF, WebP, BMP, GIF, HEIC, PDF and DICOM work"


@dataclass(frozen=True)
class InputPage:
    """One page of a file.

    image: RGB, upright. number: from 1 on; count: pages of the file, at most `MOST_PAGES`. source: the file's name.
    blank: numbers of the blank pages before it, which were left out. note: where the page comes from, or "".
    record: the waveform that the page was drawn from, of a file that holds one. sha256: of the file's bytes.
    """

    image: Image.Image
    number: int = 1
    count: int = 1
    source: str = ""
    blank: tuple[int, ...] = ()
    note: str = ""
    record: EcgRecord | None = None
    sha256: str = ""


def open_image(path: str | Path, *, sampling_rate: float | None = None) -> Image.Image:
    """The first page of a file that is not blank, as RGB. Raises `InputError` like `iter_pages`."""
    return next(iter_pages(path, sampling_rate=sampling_rate)).image


def open_page(path: str | Path, number: int | None = None, *, sampling_rate: float | None = None) -> InputPage:
    """Page `number` of a file, or the first that is not blank. Raises `InputError` where there is none."""
    count = 1
    for page in iter_pages(path, sampling_rate=sampling_rate):
        if number in (None, page.number):
            return page
        count = page.count
        if number is not None and (number < page.number or number > count):
            break
    reason = "is blank" if number is not None and number <= count else "is not there"
    raise InputError(f"{path}: page {number} {reason}; the file has {count} page{'s' * (count > 1)}")


def open_pages(path: str | Path) -> list[InputPage]:
    """All that `iter_pages` gives, in memory at once."""
    return list(iter_pages(path))


def iter_pages(path: str | Path, *, sampling_rate: float | None = None) -> Iterator[InputPage]:
    """The pages of a file ("-": standard input) in order; of several pages those that are blank are left out.

    An image is turned as its EXIF orientation says; what is transparent becomes white; 16 bits are scaled to 8.
    A waveform is drawn as a page of its first 10 s. sampling_rate: hertz, for waveforms that do not give it.
    Raises `InputError` for a file that holds no page, is damaged, or is a decompression bomb, and
    `ModuleNotFoundError` where the package for its format is not installed.
    """
    content, source = read_content(path)
    file = None if str(path) == STDIN else Path(path)
    yield from pages_in(content, source, file=file, sampling_rate=sampling_rate)


def pages_in(
    content: bytes, source: str, *, file: Path | None = None, sampling_rate: float | None = None, first: int = 1
) -> Iterator[InputPage]:
    """What `iter_pages` gives, for a file's bytes; nothing is written to disk.

    source: the file's name, for messages. file: where it lies, for formats of several files. first: number of the page
    to begin with.
    """
    blank: list[int] = []
    first_blank: InputPage | None = None
    for page in every_page(content, source, file=file, sampling_rate=sampling_rate, first=first):
        if page.count > 1 and is_blank(page.image):
            blank.append(page.number)
            first_blank = first_blank or page
        else:
            yield replace(page, blank=tuple(blank))
    if first_blank is not None and len(blank) == first_blank.count:
        yield first_blank  # whoever reads it says that nothing is on it


def every_page(
    content: bytes, source: str, *, file: Path | None = None, sampling_rate: float | None = None, first: int = 1
) -> Iterator[InputPage]:
    """Like `pages_in`, blank pages too."""
    sha256 = hashlib.sha256(content).hexdigest()
    if _is_waveform(content, file):
        require_page(first, 1, source)
        yield replace(_waveform_page(content, file, source, sampling_rate), sha256=sha256)
        return
    for page in _page_reader(content)(content, source, first):
        yield replace(page, sha256=sha256)


def require_page(number: int, count: int, source: str) -> None:
    """Raise `InputError` where a file of `count` pages has no page `number`."""
    if number > count:
        raise InputError(f"{source}: page {number} is not there; the file has {count} page{'s' * (count > 1)}")


def expand_inputs(paths: Iterable[str | Path]) -> list[Path]:
    """The files that some paths name, in order: files as they are, folders by the pictures and waveforms in them.

    A folder's own files are taken, sorted by name; those of its subfolders are not, nor a .mat whose .hea is there too.
    A pattern that the shell has left ("scans/**/*.png") is what it names, sorted. "-" stays "-".
    Raises `InputError` for a path that is not there and for a folder or a pattern without a file that can be read.
    """
    files: list[Path] = []
    for word in paths:
        path = Path(word)
        if not str(word):  # of a variable of the shell without a value; as a path it would be this folder
            raise InputError("the name of a picture is empty; write it out")
        if path.is_dir():
            inside = _readable(path.iterdir())
            if not inside:
                deeper = f'"{path}/**/*"' if any(item.is_dir() for item in path.iterdir()) else ""
                mend = f"for those of its subfolders write {deeper}" if deeper else _PICTURES_WORK
                raise InputError(f"{path}: no picture or waveform file in this folder; {mend}")
            files += inside
        elif glob.has_magic(str(path)) and not path.exists():
            inside = _readable(map(Path, glob.iglob(str(path), recursive=True)))
            if not inside:
                raise InputError(f"{path}: no picture or waveform file has such a name; {_PICTURES_WORK}")
            files += inside
        elif str(path) == STDIN or path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    return files


def _readable(files: Iterable[Path]) -> list[Path]:
    """The pictures and waveform files among some, sorted; of a record in two files the header alone."""
    from render.sources.waveform_file import WAVEFORM_SUFFIXES

    suffixes = PICTURE_SUFFIXES | WAVEFORM_SUFFIXES
    inside = sorted(file for file in files if file.suffix.lower() in suffixes and file.is_file())
    return [file for file in inside if file.suffix != ".mat" or file.with_suffix(".hea") not in inside]


def read_content(path: str | Path) -> tuple[bytes, str]:
    """A file's bytes and its name. Raises `InputError` when it is missing, empty, or larger than `MOST_BYTES`."""
    source = "standard input" if str(path) == STDIN else str(path)
    try:
        if str(path) == STDIN:
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        elif Path(path).is_file():
            with Path(path).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        else:
            raise InputError(f"{path}: no such image file; check the path")
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); check its permissions") from error
    if not content:
        raise InputError(f"{source}: the file is empty; export it again")
    if len(content) > MOST_BYTES:
        raise InputError(f"{source}: more than {MOST_BYTES >> 20} MiB; scale the image down first")
    return content, source


def require_few_pixels(width: float, height: float, source: str) -> None:
    """Raise `InputError` for an image of more than `MOST_PIXELS`, before its pixels are decoded."""
    if width * height > MOST_PIXELS:
        raise InputError(f"{source}: more than {MOST_PIXELS // 1_000_000} megapixels; scale the image down first")


@contextmanager
def damage_refused(source: str) -> Iterator[None]:
    """Whatever a decoder trips over in here (OSError, struct.error, ...) becomes one `InputError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags and of sizes that are checked here
            yield
    except (InputError, ModuleNotFoundError):
        raise
    except Image.DecompressionBombError:
        require_few_pixels(MOST_PIXELS, 2, source)
    except UnidentifiedImageError as error:
        raise InputError(f"{source}: not an image that can be read; {_PICTURES_WORK}") from error
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{source}: not an image that can be read ({reason}); {_PICTURES_WORK}") from error


def _page_reader(content: bytes) -> Callable[[bytes, str, int], Iterator[InputPage]]:
    """What reads this content, by its first bytes: names are often wrong."""
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"%PDF-"):
        from ecg_vlm.documents import pdf_pages

        return pdf_pages
    if content[128:132] == b"DICM":
        from ecg_vlm.documents import dicom_pages

        return dicom_pages
    return _heif_pages if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS else _pillow_pages


def _is_waveform(content: bytes, path: Path | None) -> bool:
    from render.sources.waveform_file import waveform_format

    return not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<svg") and bool(waveform_format(content, path))


def _waveform_page(content: bytes, path: Path | None, source: str, sampling_rate: float | None) -> InputPage:
    """The record of a waveform file, drawn on clean paper; leads that are flat or hold gaps are named."""
    from render.dataset.rows import Options, make_picture
    from render.sources.waveform_file import read_waveform

    record = read_waveform(content, path, source, sampling_rate)
    picture, _ = make_picture(record, 0, Options(lenient=True))
    with Image.open(io.BytesIO(picture.data)) as image:
        page = image.convert("RGB")
    part = "drawn" if record.seconds < 10.5 else "its first 10 s are drawn"
    note = f"{source}: {record.source} waveform, {record.seconds:.3g} s at {record.sampling_rate:g} Hz; {part}"
    if dead := record.dead_leads():
        note += f"; flat or with gaps in {', '.join(dead)}"
    return InputPage(page, source=source, note=note, record=record)


def _heif_pages(content: bytes, source: str, first: int = 1) -> Iterator[InputPage]:
    require_page(first, 1, source)
    with damage_refused(source):
        import pillow_heif

        heif = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)
        width, height = heif.size
        require_few_pixels(width, height, source)
        page = to_rgb(heif.to_pillow())  # turned by libheif
    yield InputPage(page, source=source)


def _pillow_pages(content: bytes, source: str, first: int = 1) -> Iterator[InputPage]:
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, mend in _OTHER_FORMATS:
        if start.startswith(magic):
            raise InputError(f"{source}: {mend}")
    with damage_refused(source):
        formats = (*_FORMATS, "AVIF") if features.check("avif") else _FORMATS
        image = Image.open(io.BytesIO(content), formats=formats)
        require_few_pixels(*image.size, source)
        count = 1 if image.format == "MPO" else _frames(image)  # an MPO's further images are previews of the first
    require_page(first, count, source)
    for number in range(first, count + 1):
        with damage_refused(source), _libtiff_muted() if image.format == "TIFF" else nullcontext():
            image.seek(number - 1)
            require_few_pixels(*image.size, source)
            zero_is_white = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
            page = to_rgb(_fewer_pixels(_upright(image)), zero_is_white=zero_is_white)
        yield InputPage(page, number, count, source)


_MUTING = threading.Lock()


@contextmanager
def _libtiff_muted() -> Iterator[None]:
    """Drop what libtiff says of a damaged file: it writes to the process's standard error, and Pillow lets it."""
    with _MUTING:
        try:
            stderr = os.dup(2)
        except OSError:  # there is none
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _frames(image: Image.Image) -> int:
    """How many frames the file holds, at most `MOST_PAGES`: `n_frames` would read a long animation to its end."""
    count = 1
    while count < MOST_PAGES:
        try:
            image.seek(count)
        except EOFError:
            break
        count += 1
    return count


def _fewer_pixels(image: Image.Image) -> Image.Image:
    """A grey or coloured image of more than `_MOST_IN_MEMORY` pixels, scaled down by a whole number: as RGB each takes
    four bytes, and a few bytes of a two-coloured PNG are 64 megapixels."""
    factor = math.ceil(math.sqrt(image.width * image.height / _MOST_IN_MEMORY))
    if factor == 1 or image.mode not in ("1", "L", "RGB", "RGBA", "LA", "CMYK", "YCbCr"):
        return image
    return (image.convert("L") if image.mode == "1" else image).reduce(factor)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    image.load()  # a failure in here is damage, one in the tags below is not
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def to_rgb(image: Image.Image, *, zero_is_white: bool = False) -> Image.Image:
    """Any of Pillow's modes as RGB: transparent pixels become white, 16 bits are scaled to 8.

    zero_is_white: in the deep grey modes 0 is white. In all others Pillow itself sees to that.
    """
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        if zero_is_white:
            grey = _white_of(grey) - grey
        return Image.fromarray(to_8_bits(grey)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def to_8_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of any range, as 0 to 255. From 0 on, white is that of the least usual depth that holds them all."""
    values = np.nan_to_num(grey.astype(np.float64), posinf=0.0, neginf=0.0)
    black = min(float(values.min()), 0.0)
    white = _white_of(values) if black == 0 else float(values.max())
    levels: NDArray[np.uint8] = ((values - black) * (255 / max(white - black, 1e-12))).round().astype(np.uint8)
    return levels


def _white_of(values: NDArray[Any]) -> float:
    """The white of the least depth that holds all values; of fractions up to 1, 1."""
    most = float(values.max())
    if values.dtype.kind == "f" and 0 < most <= 1:
        return 1.0
    return next((float(depth) for depth in _DEPTHS if most <= depth), most)
