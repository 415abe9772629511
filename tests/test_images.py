"""From files of all kinds to pages: upright, on white, the right one of several, and nothing harmful."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecg_vlm import documents, images, pdf_process
from ecg_vlm.answers import QuestionAnswer
from ecg_vlm.cli import main
from ecg_vlm.images import (
    MOST_PAGES,
    expand_inputs,
    iter_pages,
    open_image,
    open_page,
    open_pages,
)
from ecg_vlm.reader import Reader
from render.errors import InputError
from render.negatives.blank import is_blank

Grey = NDArray[np.float64]
Capture = pytest.CaptureFixture[str]
HEIGHT, WIDTH = 90, 160


@pytest.fixture
def page() -> Image.Image:
    """The drawing anew for each test: saving with options leaves them on the image."""
    return drawing()


def drawing() -> Image.Image:
    """A trace on pink paper with a block at the upper left, so that every turn shows."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 235, 235))
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 4, 30, 12), fill="black")
    draw.line([(x, 50 + (30 if x % 40 == 20 else 0) - x % 7) for x in range(0, WIDTH, 2)], fill="black", width=2)
    return image


@pytest.fixture(scope="module")
def grey() -> Grey:
    return np.asarray(drawing().convert("L"), np.float64)


def difference(image: Image.Image, grey: Grey) -> float:
    """Mean difference of grey levels; infinite where the sizes differ."""
    values = np.asarray(image.convert("L"), np.float64)
    if 0 <= values.shape[1] - grey.shape[1] <= 1:  # a PDF page is rounded up to whole pixels
        values = values[:, : grey.shape[1]]
    return float(np.abs(values - grey).mean()) if values.shape == grey.shape else float("inf")


# ---- one image


def as_stored(page: Image.Image, orientation: int) -> Image.Image:
    """How a camera stores the page that the tag turns upright."""
    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return page.transpose(transposes[orientation]) if orientation in transposes else page


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_turns_the_page(page: Image.Image, grey: Grey, tmp_path: Path, orientation: int, suffix: str) -> None:
    tags = Image.Exif()
    tags[274] = orientation
    quality: dict[str, Any] = {"tif": {}, "png": {}}.get(suffix, {"quality": 95})
    as_stored(page, orientation).save(tmp_path / f"x.{suffix}", exif=tags, **quality)
    assert difference(open_image(tmp_path / f"x.{suffix}"), grey) < 4


def test_damaged_exif_is_no_damage_of_the_image(page: Image.Image, grey: Grey, tmp_path: Path) -> None:
    page.save(tmp_path / "x.jpg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert difference(open_image(tmp_path / "x.jpg"), grey) < 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_deep_grey_is_scaled(grey: Grey, tmp_path: Path, suffix: str, bits: int) -> None:
    deep = (grey * ((2**bits - 1) / 255)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
    assert difference(open_image(tmp_path / f"x.{suffix}"), grey) < 1


def test_deep_grey_stays_blank_where_it_is() -> None:
    noise = np.random.default_rng(0).integers(60_000, 60_400, (64, 64)).astype(np.uint16)
    assert is_blank(images.to_rgb(Image.fromarray(noise)))


def test_a_damaged_tiff_is_refused_without_a_word_of_libtiff(tmp_path: Path, capfd) -> None:
    Image.fromarray((255 * np.random.default_rng(0).random((90, 120))).astype(np.uint8)).save(
        tmp_path / "x.tif", compression="tiff_lzw"
    )
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[100:160] = b"\xff" * 60
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(InputError, match="not an image that can be read"):
        open_image(tmp_path / "x.tif")
    print("after it", file=sys.stderr)
    assert capfd.readouterr().err == "after it\n"


def test_tiff_with_white_at_zero(grey: Grey, tmp_path: Path) -> None:
    for name, values in (("8", 255 - grey.astype(np.uint8)), ("16", 65535 - (grey * 257).astype(np.uint16))):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        entry = b"\x06\x01\x03\0\x01\0\0\0"  # tag 262, one short
        content = (tmp_path / f"{name}.tif").read_bytes()
        assert content.count(entry + b"\1") == 1
        (tmp_path / f"{name}.tif").write_bytes(content.replace(entry + b"\1", entry + b"\0"))
        assert difference(open_image(tmp_path / f"{name}.tif"), grey) < 1, name


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "F", "I"])
def test_modes(page: Image.Image, grey: Grey, tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "tif")
    quality: dict[str, Any] = {"quality": 95} if suffix == "jpg" else {}
    image = page.convert("L") if mode in ("F", "I") else page
    image = image.convert(mode, dither=Image.Dither.NONE, palette=Image.Palette.ADAPTIVE)
    if mode == "1":
        grey = np.where(grey > 127, 255.0, 0.0)
    image.save(tmp_path / f"x.{suffix}", **quality)
    assert difference(open_image(tmp_path / f"x.{suffix}"), grey) < 6


@pytest.mark.parametrize("hidden_colour", [0, 255])
@pytest.mark.parametrize("case", ["RGBA.png", "LA.png", "RGBA.webp", "P.png", "RGBA.tif"])
def test_transparent_paper_is_white(page: Image.Image, tmp_path: Path, case: str, hidden_colour: int) -> None:
    ink = np.asarray(page.convert("L")) < 128
    rgba = np.full((HEIGHT, WIDTH, 4), hidden_colour, np.uint8)
    rgba[..., 3] = 0
    rgba[ink] = (0, 0, 0, 255)
    mode, suffix = case.split(".")
    image = Image.fromarray(rgba)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / case, **options)
    assert difference(open_image(tmp_path / case), np.where(ink, 0.0, 255.0)) < 1


def test_transparent_colour_of_a_palette(page: Image.Image, tmp_path: Path) -> None:
    ink = (np.asarray(page.convert("L")) < 128).astype(np.uint8)
    image = Image.fromarray(ink, "L").convert("P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.save(tmp_path / "x.png", transparency=0)
    image.save(tmp_path / "x.gif", transparency=0)
    for name in ("x.png", "x.gif"):
        assert difference(open_image(tmp_path / name), np.where(ink, 0.0, 255.0)) < 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic(page: Image.Image, grey: Grey, tmp_path: Path, orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    tags = Image.Exif()
    tags[274] = orientation
    heif = pillow_heif.from_pillow(as_stored(page, orientation))
    heif.save(tmp_path / "x.heic", quality=95, exif=tags.tobytes())
    assert difference(open_image(tmp_path / "x.heic"), grey) < 6


@pytest.mark.parametrize(("package", "name"), [("pillow_heif", "x.heic"), ("pypdfium2", "x.pdf"), ("pydicom", "x.dcm")])
def test_what_is_not_installed_is_named(
    package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    content = {"x.heic": b"\0\0\0\x18ftypheic" + bytes(40), "x.pdf": b"%PDF-1.4", "x.dcm": bytes(128) + b"DICM"}[name]
    (tmp_path / name).write_bytes(content)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(documents, "find_spec", lambda name: None)
    assert main(["ask", str(tmp_path / name)]) == 2
    assert "pip install 'ecg-vlm[formats]'" in capsys.readouterr().err


# ---- DICOM


def dicom(file: Path, pixels: NDArray[Any] | None, kind: str = "MONOCHROME2", **elements: object) -> Path:
    """Write a secondary capture object. pixels: (rows, columns), or with 3 colours behind or frames before."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = SecondaryCaptureImageStorage, "1.2.3", "OT"
    if pixels is not None:
        colours = 3 if kind == "RGB" else 1
        shape = pixels.shape[: pixels.ndim - (colours == 3)]
        dataset.Rows, dataset.Columns = shape[-2:]
        if len(shape) == 3:
            dataset.NumberOfFrames = shape[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = colours, kind, 0
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        if colours == 3:
            dataset.PlanarConfiguration = 0
        dataset.PixelData = pixels.tobytes()

    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(file, enforce_file_format=True)
    return file


def test_dicom_images(page: Image.Image, grey: Grey, tmp_path: Path) -> None:
    deep = (grey * 16).astype(np.uint16)  # 12 bits in 16
    for kind, pixels in (
        ("MONOCHROME2", grey.astype(np.uint8)),
        ("MONOCHROME2", deep),
        ("MONOCHROME1", 4095 - deep),
        ("RGB", np.asarray(page)),
    ):
        assert difference(open_image(dicom(tmp_path / "x.dcm", pixels, kind)), grey) < 1, kind
    frames = np.stack([np.full_like(grey, 250), grey]).astype(np.uint8)
    (only,) = open_pages(dicom(tmp_path / "x.dcm", frames))
    assert (only.number, only.count, only.blank) == (2, 2, (1,))


def test_pdf_in_dicom(page: Image.Image, grey: Grey, tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    buffer = io.BytesIO()
    page.save(buffer, "PDF", resolution=254, quality=95)
    document: dict[str, Any] = {
        "EncapsulatedDocument": buffer.getvalue(),
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
    }
    assert difference(open_image(dicom(tmp_path / "x.dcm", None, **document)), grey) < 6
    text: dict[str, Any] = {"EncapsulatedDocument": b"<a/>", "MIMETypeOfEncapsulatedDocument": "text/XML"}
    with pytest.raises(InputError, match="a document of type text/XML; PDF can be read"):
        open_image(dicom(tmp_path / "x.dcm", None, **text))
    with pytest.raises(InputError, match="neither image, PDF nor waveform"):
        open_image(dicom(tmp_path / "x.dcm", None))


def test_dicom_bombs(grey: Grey, tmp_path: Path) -> None:
    file = dicom(tmp_path / "x.dcm", grey.astype(np.uint8), Rows=60_000, Columns=60_000)
    with pytest.raises(InputError, match="more than 64 megapixels"):
        open_image(file)
    content = file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99\0")
    file.write_bytes(content)
    with pytest.raises(InputError, match="a deflated DICOM file"):
        open_image(file)


# ---- several pages


@pytest.fixture
def blank() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), "white")


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png", "pdf"])
def test_blank_pages_are_left_out(
    page: Image.Image, blank: Image.Image, grey: Grey, tmp_path: Path, suffix: str
) -> None:
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    if suffix == "pdf":
        pytest.importorskip("pypdfium2")
        options = {"resolution": 254, "quality": 95}
    file = tmp_path / f"x.{suffix}"
    blank.save(file, save_all=True, append_images=[page, blank, page.rotate(180)], **options)
    first, second = open_pages(file)
    assert (first.number, first.count, first.blank, first.source) == (2, 4, (1,), str(file))
    assert (second.number, second.blank) == (4, (1, 3))
    assert difference(first.image, grey) < 6 and difference(second.image, grey[::-1, ::-1]) < 6
    assert open_page(file).number == 2 and open_page(file, 4).number == 4
    for number, reason in ((1, "page 1 is blank"), (5, "page 5 is not there; the file has 4 pages")):
        with pytest.raises(InputError, match=reason):
            open_page(file, number)


def test_a_file_of_blank_pages_gives_the_first(blank: Image.Image, tmp_path: Path) -> None:
    blank.save(tmp_path / "x.tif", save_all=True, append_images=[blank, blank])
    (first,) = open_pages(tmp_path / "x.tif")
    assert first.number == 1
    blank.save(tmp_path / "x.png")
    assert len(open_pages(tmp_path / "x.png")) == 1


def test_a_long_animation_is_read_as_far_as_its_hundredth_frame(page: Image.Image, tmp_path: Path) -> None:
    frames = [page.rotate(i % 3) for i in range(MOST_PAGES + 20)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    numbers = [each.number for each in iter_pages(tmp_path / "x.gif")]
    assert numbers[-1] == MOST_PAGES


def test_second_picture_of_a_jpeg_is_no_page(page: Image.Image, blank: Image.Image, tmp_path: Path) -> None:
    page.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[blank])
    (only,) = open_pages(tmp_path / "x.jpg")
    assert only.count == 1


def test_ask_names_the_page_it_reads(
    page: Image.Image, blank: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(Reader, "load", lambda name: FakeReader())
    file = tmp_path / "x.tif"
    blank.save(file, save_all=True, append_images=[page, page])
    assert main(["ask", str(file), "What is the rhythm?", "--json"]) == 0
    streams = capsys.readouterr()
    assert "page 2 of 3 is read; page 1 is blank; --page N reads another one" in streams.err
    assert json.loads(streams.out)["page"] == 2
    assert main(["ask", str(file), "--page", "3", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["ask", str(file), "--page", "9"]) == 2


class FakeReader:
    """Answers at once, for tests of what surrounds the answer."""

    def prefill(self, pages: list[Image.Image]) -> int:
        return len(pages)

    name = "fake"

    def answer(self, prefill: int, question: str, **_: object) -> QuestionAnswer:
        return QuestionAnswer(question, "Sinus rhythm.")

    def ask(self, prefill: int, questions: list[str], **_: object) -> list[str]:
        return ["Sinus rhythm."] * len(questions)


# ---- standard input, several files, folders


def test_standard_input(page: Image.Image, grey: Grey, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    page.save(stream, "PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream.getvalue())))
    first = open_page("-")
    assert first.source == "standard input" and difference(first.image, grey) == 0


def test_folders_become_their_files(page: Image.Image, tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "x.hea", "x.mat", "x.dat", "y.scp"):
        page.save(tmp_path / name, "PNG")
    (tmp_path / "c.png").mkdir()
    names = [path.name for path in expand_inputs([tmp_path, tmp_path / "notes.txt", "-"])]
    assert names == ["a.JPG", "b.png", "x.hea", "y.scp", "notes.txt", "-"]
    with pytest.raises(InputError, match="no picture or waveform file in this folder"):
        expand_inputs([tmp_path / "c.png"])
    with pytest.raises(InputError, match="no such file or folder"):
        expand_inputs([tmp_path / "nowhere"])


# ---- what is not an image, and what would do harm


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"PK\x03\x04" + bytes(60), "ZIP"),
        (b"%PDF-1.4\ngarbage", "the PDF cannot be read"),
        (bytes(128) + b"DICM" + b"\xff" * 99, "DICOM"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "not an image that can be read"),
        (b"GIF89a" + bytes(5), "not an image that can be read"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(60), "not an image that can be read"),
    ],
)
def test_what_is_no_image_is_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(content)
    with pytest.raises(InputError, match=reason) as failure:
        open_pages(tmp_path / "page.png")
    assert str(tmp_path) in str(failure.value) and "\n" not in str(failure.value)


def test_postscript_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "Popen", refuse)
    header = b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + bytes(22)  # a DOS EPS binary header
    (tmp_path / "page.png").write_bytes(header + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\n")
    with pytest.raises(InputError):
        open_image(tmp_path / "page.png")


def test_a_file_of_two_kinds_is_what_it_begins_with(page: Image.Image, grey: Grey, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    for rest in (pdf(b"<<>>"), b"PK\x03\x04" + bytes(99), b"<script>alert(1)</script>", b"I,II,III\n1,2,3\n"):
        (tmp_path / "x.pdf").write_bytes(buffer.getvalue() + rest)
        assert difference(open_image(tmp_path / "x.pdf"), grey) == 0


def test_pages_that_point_at_each_other_end(page: Image.Image, tmp_path: Path) -> None:
    """The second of two directories of a TIFF names the first as the next one."""
    buffer = io.BytesIO()
    page.convert("L").save(buffer, "TIFF", save_all=True, append_images=[page.convert("L")])
    content = bytearray(buffer.getvalue())
    first = int.from_bytes(content[4:8], "little")
    second_at = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    second = int.from_bytes(content[second_at : second_at + 4], "little")
    end = second + 2 + 12 * int.from_bytes(content[second : second + 2], "little")
    content[end : end + 4] = first.to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(content)
    assert len(open_pages(tmp_path / "x.tif")) in (2, MOST_PAGES)


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "x.png").write_bytes(bomb(side))
    with pytest.raises(InputError, match="more than 64 megapixels"):
        open_image(tmp_path / "x.png")


def test_a_bomb_on_the_second_page(page: Image.Image, tmp_path: Path) -> None:
    page.save(
        tmp_path / "x.tif", save_all=True, append_images=[Image.new("1", (9_000, 9_000))], compression="tiff_deflate"
    )
    pages = iter_pages(tmp_path / "x.tif")
    assert next(pages).number == 1
    with pytest.raises(InputError, match="more than 64 megapixels"):
        next(pages)


def pdf(*objects: bytes) -> bytes:
    """A PDF of one page: object 3; its content is object 4."""
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(
        (b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", *objects), start=1
    ):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return content + b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        len(places) + 1, table, len(places) + 1, len(content),
    )  # fmt: skip


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<<%b/Length %d>>stream\n%b\nendstream" % (entries, len(data), data)


def test_a_vector_pdf_is_drawn_at_ten_pixels_a_millimetre(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    points = 72 / 25.4
    head = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %f %f]/Contents 4 0 R>>" % (100 * points, 50 * points)
    (tmp_path / "x.pdf").write_bytes(pdf(head, stream(b"0 0 %f %f re f" % (20 * points, 50 * points))))
    image = open_image(tmp_path / "x.pdf")
    assert abs(image.width - 1000) <= 1 and abs(image.height - 500) <= 1
    assert abs((np.asarray(image.convert("L")) < 128).mean() - 0.2) < 0.01


def test_pdf_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdfium2")
    huge = pdf(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 1000000 1000000]/Contents 4 0 R>>", stream(b"0 0 9 9 re f"))
    (tmp_path / "huge.pdf").write_bytes(huge)
    assert open_image(tmp_path / "huge.pdf").size == (8000, 8000)
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 600 400]"
    nest = [stream(b"/F Do " * 10, form + b"/Resources<</XObject<</F %d 0 R>>>>" % (6 + i)) for i in range(9)]
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 400]/Contents 4 0 R/Resources<</XObject<</F 5 0 R>>>>>>"
    (tmp_path / "nest.pdf").write_bytes(pdf(page, stream(b"/F Do"), *nest, stream(b"0 0 10 10 re f", form)))
    monkeypatch.setattr(pdf_process, "SECONDS", 2)
    with pytest.raises(InputError, match="takes more than 2 s to draw"):
        open_image(tmp_path / "nest.pdf")
    # Where the process that draws has lost its parent, the system ends it.
    program = "from ecg_vlm import pdf_process as p; p.SECONDS = 1; p.draw_pages(100, 10**6, 1, 1)"
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, input=(tmp_path / "nest.pdf").read_bytes(), timeout=100, check=False)
    assert process.returncode == -signal.SIGXCPU


def test_what_pillow_logs_of_a_damaged_file_is_not_printed() -> None:
    kept = Path(__file__).parent / "corpus/images/samples-per-pixel/jpeg.tif"
    code = "import sys; from ecg_vlm.images import iter_pages; list(iter_pages(sys.argv[1]))"
    call = subprocess.run([sys.executable, "-c", code, str(kept)], capture_output=True, text=True, check=False)
    assert "InputError" in call.stderr and "More samples" not in call.stderr
