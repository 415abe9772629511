"""What `ecg-vlm digitize` writes for a page: WFDB, CSV, Parquet, and an overlay to look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from recipes.digitizer.result import DigitizedPage
from render.delineation import beats
from render.io import atomic_write
from render.record import HIGH_RATE_HZ, LEADS

_OVERLAY_PX = 2000
_PNG_LEVEL = 1  # a third of the usual level's time, a twelfth more bytes
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#e07000", "#008b8b")
_UNITS_PER_MV = 1000.0  # of the WFDB file: microvolts, 32 mV at most
_WFDB_MISSING = -32768


def write_files(page: DigitizedPage, image: Image.Image, folder: Path, name: str) -> dict[str, Any]:
    """Write the files of a page into `folder`, and return the facts about it, JSON-able."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (wfdb_files(page, name) | {f"{name}.csv": csv_table(page).encode()}).items():
        with atomic_write(folder / file) as partial:
            partial.write_bytes(content)
    _write_parquet(page, folder / f"{name}.parquet")
    with atomic_write(folder / f"{name}.png") as partial:
        overlay(page, image).save(partial, "PNG", compress_level=_PNG_LEVEL)
    return page.summary()


def wfdb_files(page: DigitizedPage, name: str) -> dict[str, bytes]:
    """The two files of a WFDB record of twelve channels by their names; what is missing has WFDB's value for that.

    Written here, since wfdb writes to a folder only: format 16, a checksum that is the sum of a channel's samples in
    16 bits (https://physionet.org/physiotools/wag/header-5.htm).
    """
    values = np.nan_to_num(np.round(page.signal().T.astype(np.float64) * _UNITS_PER_MV), nan=_WFDB_MISSING)
    samples = np.clip(values, _WFDB_MISSING, -_WFDB_MISSING - 1).astype("<i2")  # (n, 12)
    lines = [f"{name} {len(LEADS)} {HIGH_RATE_HZ} {len(samples)}"]
    for lead, channel in zip(LEADS, samples.T, strict=True):
        checksum = int(channel.sum(dtype=np.int64)) % 65536
        lines.append(f"{name}.dat 16 {_UNITS_PER_MV}(0)/mV 16 0 {channel[0]} {checksum} 0 {lead}")
    lines.append("# digitized from a picture by ecg-vlm; not a recording")
    return {f"{name}.hea": ("\n".join(lines) + "\n").encode(), f"{name}.dat": samples.tobytes()}


def csv_table(page: DigitizedPage) -> str:
    """time_s and the leads in mV; an empty field is missing."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["time_s", *LEADS])
    for i, values in enumerate(page.signal().T.tolist()):
        writer.writerow([f"{i / HIGH_RATE_HZ:.3f}", *("" if v != v else f"{v:.4f}" for v in values)])
    return stream.getvalue()


def _write_parquet(page: DigitizedPage, file: Path) -> None:
    """One row for each lead on each row of the page, strips too.

    The columns are made of their buffers: pyarrow imports pandas, half a second, to make one of a list or an array.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def floats(values: Sequence[float] | NDArray[np.float32], kind: pa.DataType) -> pa.Array:
        content = np.asarray(values, dtype=kind.to_pandas_dtype())
        return pa.Array.from_buffers(kind, content.size, [None, pa.py_buffer(content)])

    def ends(lengths: Iterable[int]) -> pa.Buffer:
        return pa.py_buffer(np.cumsum([0, *lengths], dtype=np.int32))

    def texts(values: Sequence[str]) -> pa.Array:
        encoded = [value.encode() for value in values]
        return pa.StringArray.from_buffers(len(encoded), ends(map(len, encoded)), pa.py_buffer(b"".join(encoded)))

    def lists(lengths: Sequence[int], values: pa.Array) -> pa.Array:
        kind = pa.list_(values.type)
        return pa.Array.from_buffers(kind, len(lengths), [None, ends(lengths)], children=[values])

    leads = page.leads
    table = pa.table(
        {
            "lead": texts([lead.lead for lead in leads]),
            "start_s": floats([lead.start_s for lead in leads], pa.float64()),
            "sampling_rate": floats([float(HIGH_RATE_HZ)] * len(leads), pa.float64()),
            "quality": floats([lead.quality for lead in leads], pa.float64()),
            "remarks": lists([len(lead.remarks) for lead in leads], texts([r for lead in leads for r in lead.remarks])),
            "millivolts": lists(
                [lead.millivolts.size for lead in leads],
                floats(np.concatenate([lead.millivolts for lead in leads]), pa.float32()),
            ),
        },
        metadata={"page": json.dumps(page.summary())},
    )
    with atomic_write(file) as partial:
        pq.write_table(table, partial)


def overlay(page: DigitizedPage, image: Image.Image) -> Image.Image:
    """The picture, paled, with what was read drawn over it: the paper's outline, each lead's trace in a colour, its
    box, name and quality, and a tick below each beat.

    Args:
        image: the picture that was digitized, or the drawn page of a waveform.
    """
    upright = ImageOps.exif_transpose(image).convert("RGB")
    factor = -(-max(upright.size) // _OVERLAY_PX)
    small = upright.reduce(factor)
    canvas = Image.blend(small, Image.new("RGB", small.size, "white"), 0.35)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(12, canvas.width // 70))
    if len(page.outline):
        pen.line([tuple(point) for point in (page.outline / factor).tolist()], fill="#ff9900", width=3)
    signal = page.signal()
    for number, trace in enumerate(page.leads):
        if not len(trace.path):
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        points = trace.path / factor
        jumps = np.flatnonzero(np.abs(np.diff(points, axis=0)).max(axis=1) > canvas.width / 40) + 1
        for piece in np.split(points, jumps):
            if len(piece) > 1:
                pen.line([tuple(point) for point in piece.tolist()], fill=colour, width=1)
        (x0, y0), (x1, y1) = (points.min(axis=0) - 2).tolist(), (points.max(axis=0) + 2).tolist()
        pen.rectangle((x0, y0, x1, y1), outline=colour)
        first = round(trace.start_s * HIGH_RATE_HZ)
        shares = beats(signal[:, first : first + trace.millivolts.size], HIGH_RATE_HZ) / trace.millivolts.size
        for beat in np.interp(shares, np.linspace(0, 1, len(points)), points[:, 0]).tolist():
            pen.line((beat, y1, beat, y1 + 8), fill=colour, width=2)
        pen.text((x0 + 3, y0 - 4), f"{trace.lead} {trace.quality:.2f}", fill=colour, font=font, anchor="ls")
    return canvas
