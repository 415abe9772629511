"""Every reader of files of other people, for `tests.fuzz`: its valid files, how it is read, and what it asks first."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, features

from ecg_vlm import pdf_process
from render.errors import InputError
from render.record import LEADS, EcgRecord
from render.statements import STATEMENTS
from tests.conftest import write_wfdb_record
from tests.fuzz import Reader
from tests.test_images import dicom, pdf, stream
from tests.test_question_tests import SAMPLES, TEMPLATES
from tests.test_waveform_formats import WRITERS, cinc_header, mat4, npy, with_checksums

_HERE = Path(__file__).parent
_V01 = _HERE / "v0_1"

# Records


@cache
def _signal() -> NDArray[np.float64]:
    """(12, 500) millivolts: a second at 500 Hz, whose limb leads follow from I and II."""
    beat = np.exp(-((np.arange(500) / 500 - 0.4) ** 2) / 3e-4)
    heights = np.array([0.4, 1.0, 0.6, -0.7, -0.1, 0.8, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3])
    return heights[:, None] * beat


@cache
def _steps() -> NDArray[np.int64]:
    """The same in steps of 5 microvolts."""
    return np.round(_signal() / 0.005).astype(np.int64)


def _files_in(write: Callable[[Path], object]) -> dict[str, bytes]:
    """What `write` writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _complete(record: EcgRecord) -> None:
    assert record.signal.shape[0] == len(LEADS) and not np.isinf(record.signal).any()


def wfdb() -> Reader:
    """A record with checksums, and one without: with them nearly every change of the samples is an error."""
    from render.sources.wfdb_folder import WfdbFolder

    files = _files_in(lambda folder: [write_wfdb_record(folder, name, _signal()) for name in ("x", "y")])
    first, *lines = files["y.hea"].decode().splitlines()
    table = [line.split() for line in lines]
    files["y.hea"] = "\n".join([first, *(" ".join([*fields[:6], fields[8]]) for fields in table)]).encode()
    return Reader(
        files,
        lambda path: _complete(WfdbFolder(path.with_suffix(".hea")).read(0)),
        r"not text|is empty|first line|record line",
    )


_PTBXL = {
    "ecg_id": "1",
    "patient_id": "2.0",
    "age": "56.0",
    "sex": "1",
    "report": 'sinus, "rhythmus"',
    "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
    "validated_by_human": "True",
    "strat_fold": "3",
    "filename_lr": "x_lr",
    "filename_hr": "x",
}
_MIMIC = {
    "subject_id": "1",
    "study_id": "7",
    "path": "x",
    **{f"report_{i}": "Sinus rhythm" for i in range(18)},
    "bandwidth": "0.05-150 Hz",
    "filtering": "60 Hz notch",
    "rr_interval": "800",
    **dict.fromkeys(("p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"), "40"),
    **dict.fromkeys(("p_axis", "qrs_axis", "t_axis"), "29999"),
}


def _csv(*rows: Mapping[str, object]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _with_record(**tables: bytes) -> dict[str, bytes]:
    return _files_in(lambda folder: write_wfdb_record(folder, "x", _signal())) | {
        f"{name}.csv": content for name, content in tables.items()
    }


def ptbxl() -> Reader:
    """PTB-XL's tables beside a record."""
    from render.sources.ptbxl import PtbXl

    def read(path: Path) -> None:
        source = PtbXl(path.parent, folds=[3])
        for i in range(len(source)):
            _complete(source.read(i))

    codes = "".join(f"{code},x\n" for code in STATEMENTS)
    files = _with_record(
        ptbxl_database=_csv(_PTBXL, _PTBXL | {"ecg_id": "2"}), scp_statements=f",diagnostic_class\n{codes}".encode()
    )
    return Reader(files, read, r"column|UTF-8", frozenset({"x.hea", "x.dat"}))


def mimic() -> Reader:
    """MIMIC-IV-ECG's tables beside a record."""
    from render.sources.mimic import MimicIvEcg

    def read(path: Path) -> None:
        source = MimicIvEcg(path.parent)
        for i in range(len(source)):
            _complete(source.read(i))

    rows = _csv(_MIMIC, _MIMIC | {"study_id": "8"})
    files = _with_record(record_list=rows, machine_measurements=rows)
    return Reader(files, read, r"column|UTF-8", frozenset({"x.hea", "x.dat"}))


def mimic_lines() -> Reader:
    """Lines of MIMIC's machine reports."""
    from render.sources.mimic_statements import statements_in

    with (_HERE / "mimic_lines.csv").open(encoding="utf-8", newline="") as file:
        lines = "\n".join(row["line"] for row in csv.DictReader(file))
    return Reader(
        {"lines.txt": lines[:2000].encode(), "more.txt": lines[-2000:].encode()},
        lambda path: statements_in(path.read_bytes().decode(errors="replace").split("\n")),
    )


def _waveforms(*names: str, first_check: str, mend: Callable[[bytes], bytes] | None = None) -> Callable[[], Reader]:
    def reader() -> Reader:
        from render.sources.waveform_file import read_waveform

        files = {name: WRITERS[name](_steps()) for name in names if name in WRITERS}
        if "x.npy" in names:
            files |= {"x.npy": npy(_steps())}
        if "x.mat" in names:
            files |= {"x.mat": mat4(_steps()), "x.hea": cinc_header(_steps()).encode()}

        def read(path: Path) -> None:
            _complete(read_waveform(path.read_bytes(), path, path.name, 500))

        return Reader(files, read, first_check, **({"mend": mend} if mend else {}))

    return reader


# Pictures


@cache
def _drawing() -> Image.Image:
    image = Image.new("RGB", (120, 80), (255, 235, 235))
    ImageDraw.Draw(image).line([(x, 50 + (30 if x % 40 == 20 else 0)) for x in range(0, 120, 2)], fill="black")
    return image


def _saved(form: str, **options: Any) -> bytes:
    return _saved_as(_drawing(), form, **options)


def _saved_as(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _with_png_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the right checksums whatever stands in them; other content as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    mended, place = content[:8], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        mended += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return mended + content[place:]


def _read_pages(path: Path) -> None:
    from ecg_vlm.images import iter_pages

    for page in iter_pages(path):
        assert page.image.mode == "RGB"


_NO_IMAGE = r"not an image that can be read; |is empty|no waveform file"


def images() -> Reader:
    """Every format that Pillow reads here."""
    forms = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "ppm": "PPM",
             "jp2": "JPEG2000"}  # fmt: skip
    files = {f"x.{suffix}": _saved(form) for suffix, form in forms.items()}
    files["pages.tif"] = _saved("TIFF", compression="tiff_lzw", save_all=True, append_images=[_drawing().convert("1")])
    files["jpeg.tif"] = _saved("TIFF", compression="jpeg")
    files["fax.tif"] = _saved_as(_drawing().convert("1"), "TIFF", compression="group4")
    if features.check("avif"):
        files["x.avif"] = _saved("AVIF")
    files["palette.png"] = _saved_as(_drawing().convert("P"), "PNG")
    files["deep.png"] = _saved_as(Image.fromarray(np.asarray(_drawing().convert("L"), np.uint16) * 257), "PNG")
    return Reader(files, _read_pages, _NO_IMAGE, mend=_with_png_checksums)


def heic() -> Reader:
    """HEIC, by libheif."""
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(_drawing()).save(buffer, quality=50)
    return Reader({"x.heic": buffer.getvalue()}, _read_pages, _NO_IMAGE)


class _Fork:
    """As `subprocess.Popen` of `pdf_process`, but a fork of this process, which has the library loaded."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        (read, stdin), (stdout, write), (stderr, complain) = (os.pipe() for _ in range(3))
        sys.stdout.flush()
        self._pid, self.returncode = os.fork(), 1
        if not self._pid:
            for number, end in enumerate((read, write, complain)):
                os.dup2(end, number)
            for end in (read, stdin, stdout, write, stderr, complain):
                os.close(end)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            try:
                self.returncode = pdf_process.draw_pages(float(command[3]), *map(int, command[4:]))
                sys.stdout.flush()
            finally:
                os._exit(self.returncode)
        for end in (read, write, complain):
            os.close(end)
        self.stdin, self.stdout, self._stderr = open(stdin, "wb"), open(stdout, "rb"), open(stderr, "rb")  # noqa: SIM115

    def kill(self) -> None:
        """End it where it runs still."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> tuple[bytes, bytes]:
        """What it writes until its end, once."""
        if not self._pid:
            return b"", b""
        written = self.stdout.read(), self._stderr.read()
        self.stdout.close()
        self._stderr.close()
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        return written


def pdfs() -> Reader:
    """PDF; each in a process of its own."""
    import pypdfium2  # noqa: F401  # before the forks

    def read(path: Path) -> None:
        with patch("ecg_vlm.documents.subprocess.Popen", _Fork):
            _read_pages(path)

    head = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 60]/Contents 4 0 R>>"
    return Reader({"x.pdf": pdf(head, stream(b"0 0 20 50 re f"))}, read, _NO_IMAGE)


def dicom_images() -> Reader:
    """DICOM with pixels: grey and coloured, as they are, and compressed by what pydicom and Pillow read."""
    from pydicom import dcmread
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

    grey = _drawing().convert("L")
    frames = {JPEGBaseline8Bit: _saved_as(grey, "JPEG"), JPEG2000Lossless: _saved_as(grey, "JPEG2000", no_jp2=True)}

    def write(folder: Path) -> None:
        for syntax in (RLELossless, *frames):
            dataset = dcmread(dicom(folder / f"{syntax.keyword}.dcm", np.asarray(grey)))
            if syntax == RLELossless:
                dataset.compress(syntax)
            else:
                dataset.PixelData, dataset.file_meta.TransferSyntaxUID = encapsulate([frames[syntax]]), syntax
            dataset.save_as(folder / f"{syntax.keyword}.dcm")
        dicom(folder / "x.dcm", np.asarray(grey))
        dicom(folder / "colours.dcm", np.asarray(_drawing()), "RGB")
        dicom(folder / "deep.dcm", np.asarray(grey, np.uint16) * 16)

    return Reader(_files_in(write), _read_pages, _NO_IMAGE)


# Recipes, runs and adapters


def recipes() -> Reader:
    """YAML recipes."""
    from recipes.config import load_recipe

    folder = _HERE.parent / "recipes" / "configs"
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.yaml"))}
    return Reader(files, load_recipe, "not valid YAML|UTF-8|characters")


def run_folders() -> Reader:
    """run.json and recipe.yaml of a run, and the state and checksums of a checkpoint."""
    from recipes.config import load_recipe
    from recipes.run_folder import checkpoint_damage, read_run

    def read(path: Path) -> None:
        folder = path.parent.parent if path.parent.name == "checkpoint-1" else path.parent
        read_run(folder)
        load_recipe(folder / "recipe.yaml")
        checkpoint_damage(folder / "checkpoint-1")

    files = {name: (_V01 / "run" / name).read_bytes() for name in ("run.json", "recipe.yaml")}
    files["checkpoint-1/trainer_state.json"] = json.dumps({"max_steps": 2, "global_step": 1}).encode()
    files["checkpoint-1/checksums.json"] = json.dumps({"trainer_state.json": [3, 5]}).encode()
    return Reader(files, read, "cannot be read as JSON|not valid YAML|UTF-8")


def adapters() -> Reader:
    """An adapter's configuration and weights, put on nano."""
    from recipes.config import ModelPart
    from recipes.model import load_adapter, load_model
    from recipes.quiet import quiet_libraries

    model = load_model(ModelPart())
    bare = [(module, {**vars(module), "_modules": dict(module._modules)}) for module in model.modules()]
    files = {name: (_V01 / "run" / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}

    def read(path: Path) -> None:
        with quiet_libraries():  # as `Reader.load`
            try:
                load_adapter(model, path.parent, "nano")
            finally:  # a copy of the model takes most of an input's time; an adapter changes its modules' attributes
                for module, attributes in bare:
                    vars(module).clear()
                    vars(module).update(attributes, _modules=dict(attributes["_modules"]))

    return Reader(files, read, "cannot be read as JSON|is a JSON", seconds=10)


def baselines() -> Reader:
    """The folder of a trained network."""
    from eval.baselines.checkpoint import load

    files = {name: (_V01 / "baseline" / name).read_bytes() for name in ("model.json", "weights.safetensors")}
    return Reader(files, lambda path: load(path.parent), "Expecting|delimiter|HeaderTooLarge|InvalidHeader", seconds=5)


def pairs() -> Reader:
    """Tables of pairs, and of X-rays that records are paired with."""
    from eval.baselines.pairs import Pairs, mimic_pairs
    from render.sources.mimic import MimicIvEcg
    from render.sources.registry import open_source

    source = open_source("simulated", limit=2)
    rows = "".join(f'{source.read(i).record_id},"sinus rhythm. \nlvh",{i}.png\n' for i in range(2))
    cxr = "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime\n"
    files = {
        "pairs.csv": f"record,report,image\n{rows}".encode(),
        "mimic-cxr-2.0.0-metadata.csv": f"{cxr}a,1,5,PA,21800506,213014.53\nb,1,6,AP,21800626,1\n".encode(),
        "record_list.csv": _csv(_MIMIC | {"ecg_time": "2180-06-01 08:00:00"}),
        "machine_measurements.csv": _csv(_MIMIC),
    }

    def read(path: Path) -> None:
        if path.name == "pairs.csv":
            found = Pairs(source, path)
            assert len(found) and all(row.report.strip() for row in found.rows)
        else:
            assert list(mimic_pairs(MimicIvEcg(path.parent), path.parent, path.parent))

    return Reader(files, read, r"column|UTF-8")


def pretrainings() -> Reader:
    """The folder of a pre-trained MoRE."""
    from eval.baselines import more
    from eval.baselines.more_pretraining import load_more
    from eval.baselines.pairs import Pairs
    from eval.baselines.pretraining import pretrain
    from eval.baselines.settings import ContrastiveSettings
    from render.sources.registry import open_source

    tiny = patch.dict(more.SIZES, more_nano=more.MoreSize(24, 2, 2))
    with tiny:
        pairs_of_two, settings = Pairs(open_source("simulated", limit=2)), ContrastiveSettings(steps=1, batch=2)
        files = _files_in(lambda folder: pretrain(pairs_of_two, "more_nano", settings, folder))

    def read(path: Path) -> None:
        with tiny:
            load_more(path.parent)

    names = ("pretraining.json", "encoder.safetensors", "towers.safetensors", "words.json")
    first_check = "cannot be read as JSON|HeaderTooLarge|InvalidHeader"
    return Reader({name: files[name] for name in names}, read, first_check, seconds=10)


# Data sets and dialogues

_TURNS = [
    {"from": "human", "value": "<image>\nWhat is the rhythm?"},
    {"from": "gpt", "value": "Sinus rhythm."},
    {"from": "human", "value": "And the rate?"},
    {"from": "gpt", "value": "70 per minute."},
]
_MESSAGES = [{"role": "user", "content": "Is it AF?"}, {"role": "assistant", "content": "No."}]
_SAMPLES = [
    {"id": "sim-1-0", "image": "x.png", "record_id": "sim-1-0", "source": "simulated", "conversations": _TURNS},
    {"id": 2, "image": "mimic/files/p1000/p10000032/s40689238/40689238-0.png", "conversations": _TURNS[:2]},
]


def data_sets() -> Reader:
    """The folder of rendered pages, opened for an evaluation."""
    from ecg_vlm.pages import load_pages

    def read(path: Path) -> None:
        root = path.parent.parent if path.suffix == ".parquet" else path.parent
        pages = load_pages(str(root))
        pages.labelled_records()
        for row in pages.rows:
            row["image"].convert("RGB")

    def write(folder: Path) -> None:
        from render.dataset.parquet import write_dataset
        from render.dataset.rows import Options
        from render.simulator.simulate import SimulatedSource

        write_dataset(SimulatedSource(1, 2), folder, Options(width=400, closed=2))

    files = _files_in(write)
    return Reader(files, read, "not a data set|cannot be read", frozenset(set(files) - set(_shards(files))), seconds=5)


def _shards(files: Mapping[str, bytes]) -> list[str]:
    return [name for name in files if name.endswith((".parquet", "manifest.json"))]


def llava() -> Reader:
    """LLaVA's dialogues beside records, and with their pictures."""
    from ecg_vlm.pictures.llava_file import LlavaPictures
    from render.dataset.llava import LlavaDialogues
    from render.simulator.simulate import SimulatedSource

    record = SimulatedSource(1, 1).read(0)

    def read(path: Path) -> None:
        LlavaDialogues(path, "simulated").dialogues(record)
        pictures = LlavaPictures(path, lenient=True)
        for i in range(len(pictures)):
            pictures.picture(i)

    lines = "\n".join(map(json.dumps, _SAMPLES))
    files = {"x.json": json.dumps(_SAMPLES).encode(), "x.jsonl": lines.encode(), "x.png": _saved("PNG")}
    return Reader(files, read, "not JSON|no JSON|contains no sample|expected a JSON", frozenset({"x.png"}))


def trl_rows() -> Reader:
    """TRL's rows and LLaVA's file as training data."""
    from render.dataset.other_rows import open_rows

    def read(path: Path) -> None:
        with tempfile.TemporaryDirectory() as cache:
            rows = open_rows(str(path), Path(cache))
            assert all(row["image"] for row in rows)

    rows = [{"messages": _MESSAGES, "images": ["x.png"]}, {"messages": _MESSAGES[:2], "images": ["x.png"]}]
    files = {"rows.jsonl": "\n".join(map(json.dumps, rows)).encode(), "x.png": _saved("PNG")}
    files["llava.json"] = json.dumps(_SAMPLES[:1]).encode()
    return Reader(files, read, "cannot be read as a data set|not JSON", frozenset({"x.png"}), seconds=5)


def pictures() -> Reader:
    """Tables of labelled pictures."""
    from ecg_vlm.pictures.picture_table import PictureTable

    row: dict[str, object] = dict.fromkeys(("file", "id", "statements", "report", "messages", "patient_id", "fold"), "")
    rows = [
        {**row, "file": "x.png", "id": "a", "statements": "SR LVH", "patient_id": "p", "fold": 1},
        {**row, "file": "x.png", "id": "b", "report": "Sinus rhythm."},
        {**row, "file": "x.png", "id": "c", "messages": json.dumps(_MESSAGES), "fold": 9},
    ]
    lines = "\n".join(json.dumps({**row, "messages": _MESSAGES, "page": 1}) for row in rows)
    files = {"labels.csv": _csv(*rows), "labels.jsonl": lines.encode(), "x.png": _saved("PNG")}
    return Reader(files, PictureTable, "not JSON|column|UTF-8|not CSV", frozenset({"x.png"}))


def question_sets() -> Reader:
    """ECG-QA's and ECGBench's questions, with answers to them."""
    from eval.question_sets import answers_by_question, read_questions, score_answers

    def read(path: Path) -> None:
        scheme = "ecgbench" if path.name == "code15-test.json" else "ecgqa"
        name = path if scheme == "ecgbench" else path.parent / "ecgqa.json"
        score_answers(read_questions(f"{scheme}:{name}"), answers_by_question(str(path.parent / "answers.jsonl")))

    turns = [{"from": "human", "value": "Which one? Options: NORM, AFIB"}, {"from": "gpt", "value": "NORM"}]
    answers = [{"question_id": number, "answer": "yes, sinus rhythm"} for number in range(len(SAMPLES))]
    files = {
        "ecgqa.json": json.dumps(SAMPLES).encode(),
        "answers_for_each_template.csv": _csv(*({"template_id": n, "classes": [*c]} for n, c in TEMPLATES.items())),
        "code15-test.json": json.dumps([{"id": 1, "image": "a.png", "conversations": turns}]).encode(),
        "answers.jsonl": "\n".join(map(json.dumps, answers)).encode(),
    }
    return Reader(files, read, "no JSON|not JSON|JSON list|needs the columns")


# Answers, predictions and reports


def answers() -> Reader:
    """Files of answers in every form."""
    from eval.answer_files import answer_rows
    from eval.storage import labels_of, read_answers

    def read(path: Path) -> None:
        for row in answer_rows(str(path)):
            assert isinstance(row.answer, str) and isinstance(row.record_id, str)
        if path.suffix == ".jsonl":
            labels_of(read_answers(path), path.name)

    rows = [
        {
            "record_id": 15.0,
            "question": "Rhythm?",
            "answer": "Sinus rhythm, 'normal'.",
            "statements": ["SR"],
            "fold": 9,
        },
        {"record_id": "records500/00016_hr", "question": "", "answer": "AF", "statements": ["AFIB"], "fold": 9},
    ]
    files = {
        "x.json": json.dumps(rows).encode(),
        "x.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "x.csv": _csv(*rows),
        "x.tsv": _csv(*rows).replace(b",", b"\t"),
        "x.txt": b'Sinus rhythm.\n{"answer": "AF"}\n',
    }
    return Reader(files, read, "not JSON|UTF-8|no column of answers|not CSV")


def predictions() -> Reader:
    """Files of predictions in every form."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from eval.prediction_files import read_predictions

    def read(path: Path) -> None:
        read_predictions(path.parent / "x.npy" if path.name.startswith("x.npy") or path.suffix == ".txt" else path)

    rows = [{"record_id": f"{k}", "fold": 9, "NORM": 0.1 * k, "AFIB": 0.3, "LVH": 0.5} for k in range(5)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    array = io.BytesIO()
    np.save(array, np.full((5, 3), 0.25))
    files = {
        "x.csv": _csv(*rows), "x.tsv": _csv(*rows).replace(b",", b"\t"), "x.parquet": buffer.getvalue(),
        "x.npy": array.getvalue(), "x.columns.txt": b"NORM\nAFIB\nLVH\n", "x.records.txt": b"1\n2\n3\n4\n5\n",
    }  # fmt: skip
    return Reader(files, read, "no column is|UTF-8|cannot be read|not CSV")


def reports() -> Reader:
    """The folder of an evaluation, with a calibration."""
    from eval.metrics.calibration import read_calibration
    from eval.storage import read_evaluation

    def read(path: Path) -> None:
        read_evaluation(path.parent)
        read_calibration(path.parent / "calibration.json")

    files = {name: (_V01 / "report" / name).read_bytes() for name in ("answers.jsonl", "report.json", "scores.parquet")}
    files["calibration.json"] = (_V01 / "pred" / "calibration.json").read_bytes()
    return Reader(files, read, "cannot be read|not JSON|is a JSON")


# Words


@cache
def _answers() -> list[dict[str, str]]:
    with (_HERE / "answers.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def parser() -> Reader:
    """Answers in words, read alone and with a question."""
    from eval.parser.parse import parse, refusal

    def read(path: Path) -> None:
        text = path.read_bytes().decode(errors="replace")
        question, _, answer = text.partition("\n")
        for reading in (parse(text), parse(answer, question)):
            assert not set(reading.present) & set(reading.absent)
            assert all(0 <= finding.span[0] <= finding.span[1] <= len(text) for finding in reading.findings)
        refusal(text)

    files = {f"{k}.txt": f"{row['question']}\n{row['answer']}".encode() for k, row in enumerate(_answers()[::8])}
    return Reader(files, read)


def questions() -> Reader:
    """Questions as people ask them."""
    from ecg_vlm.questions import read_question

    texts = sorted({row["question"] for row in _answers() if row["question"]})
    texts += ["What is the heart rate?", "Ist der Rhythmus regelmäßig?", "QTc?", "The rhythm is ____.", "LBBB or RBBB?"]
    files = {f"{k}.txt": text.encode() for k, text in enumerate(texts)}
    return Reader(files, lambda path: read_question(path.read_bytes().decode(errors="replace")))


# The API of `serve`


def http() -> Reader:
    """Bodies of requests."""
    from starlette.testclient import TestClient

    from ecg_vlm.serve.app import create_app
    from ecg_vlm.serve.models import Models, load_readers
    from ecg_vlm.serve.security import Access
    from ecg_vlm.serve.service import Limits, Service

    service = Service(Models(load_readers(["nano"])), 0, Limits(body_bytes=1 << 20))
    client = TestClient(create_app(service, Access()), base_url="http://127.0.0.1:8571").__enter__()
    image = "data:image/png;base64," + base64.b64encode(_saved("PNG")).decode()
    page = {"images": [{"name": "x.png", "data": image}], "page": 1}
    part = {"type": "image_url", "image_url": {"url": image}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "Rhythm?"}, part]}]
    ask = {**page, "questions": ["Rhythm?"], "max_new_tokens": 1, "as_is": True, "scores": False, "view": False}
    (result,) = client.post("/v1/ask", json=ask).json()["results"]
    bodies = {
        "ask": ask,
        "score": {**page, "as_is": True},
        "digitize": {**page, "correction": {"turn": 90, "corners": [[0, 0], [100, 0], [100, 60], [0, 60]]}},
        "pages": {"images": page["images"]},
        "parse": {"answers": [{"answer": "Sinus rhythm.", "question": "Rhythm?"}], "cautious": True},
        "chat-completions": {"model": "nano", "messages": turns, "max_tokens": 1, "stream": False},
        "export": {"result": result, "format": "fhir"},
    }

    def read(path: Path) -> None:
        response = client.post(
            f"/v1/{path.stem.replace('-', '/')}",
            content=path.read_bytes(),
            headers={"content-type": "application/json"},
        )
        assert response.status_code < 500, response.text[:300]
        if response.status_code != 200:
            message = response.json()["error"]["message"]
            assert "Traceback" not in message and ".py" not in message, message
            raise InputError(message)

    files = {f"{name}.json": json.dumps(body).encode() for name, body in bodies.items()}
    return Reader(files, read, "the body ", seconds=10)


READERS: dict[str, Callable[[], Reader]] = {
    "wfdb": wfdb,
    "ptbxl": ptbxl,
    "mimic": mimic,
    "mimic-lines": mimic_lines,
    "scp": _waveforms("x.scp", first_check="no waveform file|checksum", mend=with_checksums),
    "dicom-waveform": _waveforms("x.dcm", first_check="no waveform file"),
    "xml": _waveforms("hl7.xml", "muse.xml", "philips.xml", first_check="no waveform file|not XML|XML of type"),
    "edf": _waveforms("x.edf", "x.bdf", first_check="no waveform file"),
    "csv-waveform": _waveforms("x.csv", first_check="no waveform file"),
    "arrays": _waveforms("x.npy", "x.mat", first_check="no waveform file"),
    "images": images,
    "heic": heic,
    "pdf": pdfs,
    "dicom-image": dicom_images,
    "recipes": recipes,
    "runs": run_folders,
    "adapters": adapters,
    "baselines": baselines,
    "pairs": pairs,
    "pretrainings": pretrainings,
    "data-sets": data_sets,
    "llava": llava,
    "trl": trl_rows,
    "pictures": pictures,
    "question-sets": question_sets,
    "answers": answers,
    "predictions": predictions,
    "reports": reports,
    "parser": parser,
    "questions": questions,
    "http": http,
}
