"""How near digitized pages come to the records they were drawn from, by the look of the page.

    python benchmarks/digitizing.py ptbxl:DIR [ptbxl:DIR ...] [--folds 9] [--records 40] [--looks clean,photo] [--nano]

For each look: the median signal-to-noise ratio (`eval.metrics.signal_to_noise`), pages whose layout and lead names are
right, the median differences of rate, intervals and axis from those of the whole record, and CPU seconds a page.
"ecg-plot" is the package of that name, drawn in its two formats; it is left out where it is not installed. With --nano:
macro-AUC of the shipped nano (71 statements, those with both labels among the records) on the picture as it is and on
the page drawn anew, for the same records.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.images import InputPage
from ecg_vlm.page_reading import PageReading, read_page
from eval.metrics.signal_to_noise import signal_to_noise_db
from recipes.digitizer.result import DigitizedPage
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.measurements import measure
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord, resample
from render.sources.registry import open_source
from render.statements import STATEMENTS

LOOKS = ("clean", "scan", "photo", "worn", "ecg-plot")
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
    picture, _ = make_picture(record, seed, Options(style=look, width=WIDTH, lenient=True))
    rate = record.sampling_rate
    shown = [(lead.lead, lead.start_sample / rate, lead.end_sample / rate) for lead in picture.geometry.leads]
    return Image.open(io.BytesIO(picture.data)).convert("RGB"), shown, "3x4+1R"


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


def macro_auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, int]:
    """Mean AUC of the statements that some records have and some have not, and their number."""
    from sklearn.metrics import roc_auc_score

    mixed = labels.any(axis=0) & ~labels.all(axis=0)
    values = [roc_auc_score(labels[:, k], scores[:, k]) for k in np.flatnonzero(mixed)]
    return float(np.mean(values)), len(values)


def measure_look(look: str, records: Sequence[EcgRecord], reader: Any) -> list[str]:
    """The cells of a look's row."""
    db, seconds, right, refusals = [], [], 0, 0
    errors: dict[str, list[float]] = defaultdict(list)
    scores: tuple[list[Any], list[Any]] = ([], [])
    for seed, record in enumerate(records):
        image, shown, layout = draw_page(record, look, seed)
        start = time.process_time()
        reading: PageReading = read_page(InputPage(image))
        seconds.append(time.process_time() - start)
        page = reading.page
        refusals += page is None
        db.append(0.0 if page is None else page_db(record, page, shown))
        right += page is not None and page.layout == layout and not page.rotation_degrees
        whole = measure(record)
        for key in MEASURES:
            if key in whole and key in reading.measurements:
                errors[key].append(difference(key, whole[key], reading.measurements[key]))
        if reader is not None:
            for part, view in zip(scores, (image, reading.view), strict=True):
                part.append(list(reader.score(view).values()))
    cells = [look, f"{np.median(db):.1f}", f"{np.mean(db):.1f}", f"{right} of {len(records)}", str(refusals)]
    cells += [f"{np.median(errors[key]):.1f}" if errors[key] else "" for key in MEASURES]
    cells.append(f"{np.median(seconds):.1f}")
    if reader is not None:
        labels = np.array([[code in record.statements for code in STATEMENTS] for record in records])
        (as_is, count), (anew, _) = (macro_auc(np.array(part), labels) for part in scores)
        cells += [f"{as_is:.3f}", f"{anew:.3f} ({count} statements)"]
    return cells


def main() -> None:
    """Print a row for each look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="ptbxl:DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[9])
    parser.add_argument("--records", type=int, default=40)
    parser.add_argument("--looks", default=",".join(LOOKS))
    parser.add_argument("--nano", action="store_true", help="score nano, too")
    a = parser.parse_args()
    torch.set_num_threads(1)
    looks = [look for look in a.looks.split(",") if look != "ecg-plot" or importlib.util.find_spec("ecg_plot")]
    reader = None
    if a.nano:
        from ecg_vlm.reader import Reader

        reader = Reader.load("nano")
    records = []
    for record in sample_records(a.sources, a.folds, a.records):
        try:
            records.append(replace(record, signal=record.signal[:, : round(10 * record.sampling_rate)]))
        except InputError:
            continue
    head = ["look", "median dB", "mean dB", "layout right", "not read", "rate /min", "PR ms", "QRS ms", "QT ms", "axis",
            "CPU s", *(["AUC as it is", "AUC drawn anew"] if a.nano else [])]  # fmt: skip
    print(f"{len(records)} records, folds {a.folds}")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for look in looks:
        print(f"| {' | '.join(measure_look(look, records, reader))} |", flush=True)


if __name__ == "__main__":
    main()
