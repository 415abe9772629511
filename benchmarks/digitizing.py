"""How near digitized pages come to the records they were drawn from, by the look of the page.

    python benchmarks/digitizing.py ptbxl:DIR [ptbxl:DIR ...] [--folds 9] [--records 40] [--looks clean,photo]
        [--keep DIR] [--model nano RUN ...] [--as-is] [--baseline RUN]

For each look: the median signal-to-noise ratio (`eval.metrics.signal_to_noise`), pages whose layout and lead names are
right, the median differences of rate, intervals and axis from those of the whole record, and CPU seconds a page.
"ecg-plot" is the package of that name, drawn in its two formats; it is left out where it is not installed; "wfdb" is
`wfdb.plot_items` with its grid, whose axes have scales of their own; "photo-12x1" is a photo of twelve rows of 10 s.
With --keep what was read is kept in a folder, page by page, and not read again. With --model: macro-AUC of each model
(71 statements, those with both labels among the records) on the view
that `ask` shows, with --as-is on the picture as it is as well. With --baseline: macro-AUC of a CNN on the records, on
what the pages show of them (0 mV elsewhere), and on the same digitized.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.images import InputPage
from ecg_vlm.page_reading import PageReading, read_page, record_of
from ecg_vlm.reader import Reader
from eval.baselines.checkpoint import TrainedBaseline, load
from eval.baselines.train import predict
from eval.metrics.bootstrap import macro_auc
from eval.metrics.signal_to_noise import signal_to_noise_db
from recipes.digitizer.result import DigitizedPage
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.measurements import measure
from render.record import HIGH_RATE_HZ, LEADS, LOW_RATE_HZ, EcgRecord, resample
from render.sources.registry import open_source
from render.statements import STATEMENTS

LOOKS = ("clean", "scan", "photo", "worn", "photo-12x1", "ecg-plot", "wfdb")
MEASURES = ("rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qrs_axis_deg")
WIDTH = 2200  # pixels of our own pages: 200 dots per inch

Stretch = tuple[str, float, float]
"""A lead, and the seconds of the record that the page shows of it."""


def sample_records(specs: Sequence[str], folds: Sequence[int], count: int) -> Iterator[EcgRecord]:
    """Records spread evenly over the sources."""
    sources = [open_source(spec, folds=folds) for spec in specs]
    places = [(source, i) for source in sources for i in range(len(source))]
    for k in range(min(count, len(places))):
        source, i = places[k * len(places) // min(count, len(places))]
        yield source.read(i)


def draw_page(record: EcgRecord, look: str, seed: int) -> tuple[Image.Image, list[Stretch], str]:
    """A page with the stretches of the record that it shows, and the name of its layout."""
    if look == "ecg-plot":
        return _ecg_plot_page(record, two_columns=seed % 2 == 1)
    if look == "wfdb":
        return _wfdb_page(record)
    style, _, rows = look.partition("-")
    layout = rows or "3x4+1R"
    picture, _ = make_picture(record, seed, Options(style=style, layout=layout, width=WIDTH, lenient=True))
    rate = record.sampling_rate
    shown = [(lead.lead, lead.start_sample / rate, lead.end_sample / rate) for lead in picture.geometry.leads]
    return Image.open(io.BytesIO(picture.data)).convert("RGB"), shown, layout


def _ecg_plot_page(record: EcgRecord, *, two_columns: bool) -> tuple[Image.Image, list[Stretch], str]:
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    plt.close("all")
    samples = round(10 * record.sampling_rate)
    ecg_plot: Any = importlib.import_module("ecg_plot")
    ecg_plot.plot(
        record.signal[:, :samples].astype(float), sample_rate=int(record.sampling_rate), title="",
        columns=1 + two_columns, lead_index=list(LEADS),
    )  # fmt: skip
    page = io.BytesIO()
    plt.savefig(page, format="png", dpi=140 if two_columns else 100)
    layout = "6x2" if two_columns else "12x1"
    return Image.open(page).convert("RGB"), [(lead, 0.0, samples / record.sampling_rate) for lead in LEADS], layout


def _wfdb_page(record: EcgRecord) -> tuple[Image.Image, list[Stretch], str]:
    import matplotlib
    import matplotlib.pyplot as plt
    import wfdb

    matplotlib.use("Agg")
    plt.close("all")
    figure = wfdb.plot_items(
        record.signal.T.astype(float), fs=record.sampling_rate, sig_name=list(LEADS), sig_units=["mV"] * len(LEADS),
        time_units="seconds", ecg_grids="all", figsize=(20, 30), return_fig=True,
    )  # fmt: skip
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=100)
    seconds = record.signal.shape[1] / record.sampling_rate
    return Image.open(page).convert("RGB"), [(lead, 0.0, seconds) for lead in LEADS], "12x1"


def page_db(record: EcgRecord, page: DigitizedPage, shown: Sequence[Stretch]) -> float:
    """Signal-to-noise ratio of all stretches of a page; a stretch that was not read is all error."""
    signal = resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)
    pairs = []
    for name, start, end in shown:
        reference = signal[LEADS.index(name), round(start * HIGH_RATE_HZ) : round(end * HIGH_RATE_HZ)]
        alike = [lead for lead in page.leads if lead.lead == name and abs(lead.seconds / (end - start) - 1) < 0.35]
        pairs.append((reference, alike[0].millivolts if alike else np.zeros(0)))
    return signal_to_noise_db(pairs, HIGH_RATE_HZ)


def difference(key: str, a: float, b: float) -> float:
    """Between two measurements, the shorter way round for angles."""
    return min(abs(a - b), 360 - abs(a - b)) if key.endswith("deg") else abs(a - b)


def auc_cell(scores: Sequence[Any], labels: NDArray[np.bool_]) -> str:
    """Macro-AUC over the statements that some records have and some have not, and their number."""
    result = macro_auc(labels, np.array(scores))
    return f"{result.value:.3f} ({len(result.per_class)} statements)"


@dataclass(frozen=True, eq=False)
class Page:
    """What was read off a page. signal: (12, 5000) mV at 500 Hz, NaN where nothing was read; None where refused."""

    picture: Image.Image
    shown: Sequence[Stretch]
    view: Image.Image
    signal: NDArray[np.float32] | None
    db: float
    is_right: bool
    seconds: float
    differences: dict[str, float] = field(default_factory=dict)


def read(record: EcgRecord, look: str, seed: int, kept: Path | None) -> Page:
    """Draw a page and read it, or take what was kept of it."""
    picture, shown, layout = draw_page(record, look, seed)
    about = kept and kept / f"{record.record_id}-{seed}.json"
    if about and about.exists():
        signal = np.load(about.with_suffix(".npy")) if about.with_suffix(".npy").exists() else None
        return Page(picture, shown, Image.open(about.with_suffix(".png")), signal, **json.loads(about.read_text()))
    start = time.process_time()
    reading: PageReading = read_page(InputPage(picture))
    seconds = time.process_time() - start
    whole, page = measure(record), reading.page
    numbers: dict[str, Any] = {
        "db": 0.0 if page is None else page_db(record, page, shown),
        "is_right": page is not None and page.layout == layout and not page.rotation_degrees,
        "seconds": seconds,
        "differences": {
            key: difference(key, whole[key], reading.measurements[key])
            for key in MEASURES
            if key in whole and key in reading.measurements
        },
    }
    signal = None if page is None else record_of(page).signal
    if about:
        reading.view.save(about.with_suffix(".png"))
        if signal is not None:
            np.save(about.with_suffix(".npy"), signal)
        about.write_text(json.dumps(numbers))
    return Page(picture, shown, reading.view, signal, **numbers)


def cnn_scores(model: TrainedBaseline, records: Sequence[EcgRecord], pages: Sequence[Page]) -> list[list[Any]]:
    """Scores of the records, of what the pages show of them, and of what was read off the pages."""
    rows: list[list[Any]] = [[], [], []]
    for record, page in zip(records, pages, strict=True):
        on_page = np.full_like(record.signal, np.nan)
        for lead, start, end in page.shown:
            part = slice(round(start * record.sampling_rate), round(end * record.sampling_rate))
            on_page[LEADS.index(lead), part] = record.signal[LEADS.index(lead), part]
        read_off = np.full((12, 5000), np.nan) if page.signal is None else page.signal
        rates = record.sampling_rate, record.sampling_rate, HIGH_RATE_HZ
        for row, signal, rate in zip(rows, (record.signal, on_page, read_off), rates, strict=True):
            centred = signal - np.where(np.isfinite(signal), signal, 0).sum(1, keepdims=True) / np.maximum(
                np.isfinite(signal).sum(1, keepdims=True), 1
            )
            slow = resample(np.nan_to_num(centred).astype(np.float32), rate, LOW_RATE_HZ)[:, :1000]
            row.append(predict(model, np.pad(slow, ((0, 0), (0, 1000 - slow.shape[1])))[None].astype(np.float32))[0])
    return rows


def main() -> None:
    """Print a row for each look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="ptbxl:DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[9])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--looks", default=",".join(LOOKS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--model", nargs="+", default=[], help="nano, a run, a folder of weights")
    parser.add_argument("--as-is", action="store_true", help="models on the pictures as they are, too")
    parser.add_argument("--baseline", type=Path, help="a trained CNN")
    a = parser.parse_args()
    torch.set_num_threads(1)
    looks = [look for look in a.looks.split(",") if look != "ecg-plot" or importlib.util.find_spec("ecg_plot")]
    readers = {model: Reader.load(model) for model in a.model}
    cnn = load(a.baseline) if a.baseline else None
    records = []
    for record in sample_records(a.sources, a.folds, a.records):
        try:
            records.append(replace(record, signal=record.signal[:, : round(10 * record.sampling_rate)]))
        except InputError:
            continue
    labels = np.array([[code in record.statements for code in STATEMENTS] for record in records])
    head = ["look", "median dB", "mean dB", "layout right", "not read", "rate /min", "PR ms", "QRS ms", "QT ms", "axis",
            "CPU s", *(f"{model}{how}" for model in readers for how in ("", ", as it is")[: 1 + a.as_is]),
            *(["CNN: record", "on the page", "digitized"] if cnn else [])]  # fmt: skip
    print(f"{len(records)} records, folds {a.folds}")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for look in looks:
        kept = a.keep and a.keep / look
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
        pages = [read(record, look, seed, kept) for seed, record in enumerate(records)]
        db = [page.db for page in pages]
        cells = [look, f"{np.median(db):.1f}", f"{np.mean(db):.1f}", f"{sum(page.is_right for page in pages)}",
                 f"{sum(page.signal is None for page in pages)}"]  # fmt: skip
        for key in MEASURES:
            differences = [page.differences[key] for page in pages if key in page.differences]
            cells.append(f"{np.median(differences):.1f} ({len(differences)})" if differences else "")
        cells.append(f"{np.median([page.seconds for page in pages]):.1f}")
        for reader in readers.values():
            images = [[page.view for page in pages], [page.picture for page in pages]][: 1 + a.as_is]
            cells += [auc_cell([list(reader.score(image).values()) for image in part], labels) for part in images]
        if cnn is not None:
            at = [list(STATEMENTS).index(code) for code in cnn.classes]
            cells += [auc_cell(scores, labels[:, at]) for scores in cnn_scores(cnn, records, pages)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
