"""The yardsticks of the benchmarks: what is compared is the same work."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.metrics.calibration import read_calibration
from recipes.model import load_model, load_processor
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options
from render.errors import InputError
from render.measurements import beats
from render.record import LEADS
from render.simulator.simulate import SimulatedSource, simulate
from render.statements import STATEMENTS


def _benchmark(name):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tuning():
    return _benchmark("tuning")


@pytest.mark.parametrize("tower", ["frozen", "trained"])
def test_stock_trl_learns_what_the_packed_row_learns(tuning, tower, tmp_path):
    write_dataset(SimulatedSource(5, 2), tmp_path / "all", Options(width=672, closed=8))
    tuning.cut_pages(tmp_path / "all", tmp_path / "3", 3)
    assert [len(told) for told in open_dataset(tmp_path / "3")["dialogues"]] == [3, 3]
    recipe = tuning.recipe_for(False, "random:nano", "lora.dropout=0")
    recipe = tuning.with_targets(recipe, tuning._TOWERS[tower])
    base, processor = load_model(recipe.model), load_processor("random:nano")
    made = tuning.contestants(base, processor, recipe, tmp_path / "3", 3)
    ours, stock = ([each.step() for _ in range(2)] for each in made.values())
    assert ours == pytest.approx(stock, abs=1e-5)
    assert ours[0] != pytest.approx(ours[1], abs=1e-3)  # the steps move something
    held, operations = zip(*(tuning.weigh(each.step) for each in made.values()), strict=True)
    assert held[0] < held[1] and operations[0] < 0.5 * operations[1]


def test_turns_go_on_where_one_runs_out_of_memory(tuning):
    taken = []

    def greedy():
        taken.append("greedy")
        raise torch.OutOfMemoryError("no room")

    cost = tuning.take_turns({"modest": lambda: taken.append("modest"), "greedy": greedy}, 2)
    assert taken == ["modest", "greedy", "modest", "modest"]
    assert cost["greedy"] is None and cost["modest"].wall >= 0
    assert list(tuning._speeds(cost, 8))[1:3] == ["out of memory", "–"]


def test_referee_reads_both_kinds_after_either(monkeypatch, capsys):
    referee = _benchmark("referee")
    monkeypatch.setattr(referee, "PtbXl", lambda folder, folds: SimulatedSource(folds[0], 12))
    words = "nowhere --records 12 --epochs 1 --real-epochs 1 --held-out 12 --folds 9 --train-folds 1-2"
    referee.main(words.split())
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "→" in line]
    assert [line[0][2:].split(" → ") for line in lines[1:]] == [
        [taught, read] for taught in ("simulated", "real") for read in ("real, folds 9", "simulated, held out")
    ]
    assert all(0 <= float(line[1]) <= 1 and int(line[2]) > 3 for line in lines[1:])


def test_referee_counts_statements_with_enough_records(monkeypatch):
    referee = _benchmark("referee")
    labels = np.zeros((10, 71), dtype=bool)
    labels[:5, 3], labels[:2, 4], labels[:9, 5] = True, True, True
    monkeypatch.setattr(referee, "predict", lambda model, signals: np.linspace(1, 0, 10)[:, None] * np.ones(71))
    result = referee.evaluate(None, (np.zeros((10, 12, 1000), np.float32), labels), 2)
    assert result.per_class == {referee.CLASSES[3]: 1.0, referee.CLASSES[4]: 1.0}
    assert referee.row("a → b", result, 1) == f"| a → b | 1.000 | 2 | {referee.CLASSES[3]} 1.00 |"


def test_measuring_compares_the_number_said_with_the_one_known(monkeypatch, capsys, tmp_path):
    measuring = _benchmark("measuring")
    write_dataset(SimulatedSource(5, 12), tmp_path, Options(width=672, tasks=("features",), forms=("open",)))

    class Parrot:
        """Says what is known of a page, 7 more."""

        load = classmethod(lambda cls, model: cls())

        def ask(self, image, questions):
            return [f"About {known[q] + 7:g} of them." if known[q] is not None else "There is none." for q in questions]

    told = [d["messages"] for row in open_dataset(tmp_path) for d in row["dialogues"]]
    rates = [m for m in told if measuring.quantity_of(m[0]["content"]) is measuring.QUANTITIES["rate_bpm"]]
    known = {question["content"]: 70.0 for question, _ in told}
    monkeypatch.setattr(measuring, "Reader", Parrot)
    found, silent = measuring.errors("nano", str(tmp_path), 12)
    heard = found[measuring.QUANTITIES["rate_bpm"].name]
    assert silent == 0 and len(rates) == len(heard)
    assert sorted(heard) == pytest.approx(sorted(77 - measuring.number(answer["content"]) for _, answer in rates))
    known = dict.fromkeys(known)  # type: ignore[assignment]
    assert measuring.errors("nano", str(tmp_path), 12)[1] > 0
    measuring.main([str(tmp_path)])
    assert capsys.readouterr().out.endswith("without\n")


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("What is the heart rate?", "the heart rate"),
        ("Tell me the QTc by Bazett's formula.", "the QTc by Bazett's formula"),
        ("What is the depth of the S wave in lead V1?", "the depth of the S wave in lead V1"),
        ("What does this ECG show?", ""),
    ],
)
def test_measuring_knows_what_a_question_is_about(question, name):
    found = _benchmark("measuring").quantity_of(question)
    assert (found.name if found else "") == name


@pytest.mark.parametrize(
    ("answer", "number"),
    [("About -30 degrees.", -30.0), ("1.2 mV", 1.2), ("None.", None), ("60 to 70", None), ("V1", None)],
)
def test_measuring_takes_the_only_number(answer, number):
    assert _benchmark("measuring").number(answer) == number


def _write_ludb(folder: Path, count: int) -> None:
    """Simulated records in LUDB's layout. Every lead has the same marks but III, which has none: P from 160 to 60 ms
    before the QRS, a QRS of 90 ms around the beat, T until 390 ms behind the QRS's onset."""
    wfdb = pytest.importorskip("wfdb")
    (folder / "data").mkdir()
    lines = ["ID,Rhythms"]
    for number in range(1, count + 1):
        record = simulate(number, ["SR"])
        names = [lead.lower() for lead in LEADS]
        form = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
        where = {"write_dir": str(folder / "data")}
        wfdb.wrsamp(str(number), 500, ["mV"] * 12, names, p_signal=record.signal.T.astype(float), **form, **where)
        for lead in names:
            samples, symbols = [], []
            for beat in (beats(record.signal, 500)[1:-1]).tolist() if lead != "iii" else []:
                for onset, end, wave in ((-102, -52, "p"), (-22, 23, "N"), (60, 173, "t")):
                    samples += [beat + onset, beat + (onset + end) // 2, beat + end]
                    symbols += ["(", wave, ")"]
            if lead == "iii":
                samples, symbols = [5], ["N"]
            wfdb.wrann(str(number), "atr", np.array(samples), symbols, **where)
            (folder / "data" / f"{number}.atr").rename(folder / "data" / f"{number}.{lead}")
        lines.append(f"{number},Sinus rhythm")
    (folder / "ludb.csv").write_text("\n".join(lines), encoding="utf-8")


def test_delineation_reads_the_cardiologists_marks(tmp_path, monkeypatch, capsys):
    delineation = _benchmark("delineation")
    _write_ludb(tmp_path, 2)
    records = list(delineation.read_ludb(tmp_path))
    known = {"pr_ms": 160.0, "qrs_ms": 90.0, "qt_ms": 390.0}
    assert len(records) == 2
    for marked in records:
        assert {name: marked.reference[name] for name in known} == known
        assert {name: marked.reference[f"{name}*"] for name in known} == known
        assert np.isnan(marked.marks["QRS"][:, LEADS.index("III")]).all()
        assert marked.reference["rate_bpm"] == pytest.approx(marked.record.measurements.get("rate_bpm", 75), abs=60)
    monkeypatch.setattr(delineation, "neurokit_measure", lambda record: {"qrs_ms": 95.0})
    monkeypatch.setattr(delineation, "neurokit_beats", lambda record: np.zeros(0))
    delineation.main(["--ludb", str(tmp_path)])
    rows = [[c.strip() for c in line.split("|")] for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    qrs = [row for row in rows if row[1] == "QRS, ms"]
    assert [row[4:7] for row in qrs] == [["5.0 / 5.0 (+5.0)", "1", "1"]] * 2
    same_beats = [row for row in rows if row[1] == "rate of the marked beats"]
    assert [row[3:4] for row in same_beats] == [["1"]] * 2
    assert all(float(row[2].split()[0]) < 0.5 for row in same_beats)  # the detector puts beats at multiples of 10 ms
    ours = [row for row in rows if row[1].startswith("ours")]
    assert len(ours) == 2 and all(int(row[2]) > 5 and row[3] == row[4] == "0" for row in ours)


def test_delineation_compares_the_rate_of_the_same_beats():
    delineation = _benchmark("delineation")
    record = simulate(1, ["SR"])
    marks = {"QRS": np.repeat(np.array([500.0, 1000, 1500, 2000])[:, None, None] + [-20, 20], 12, axis=1)}
    marked = delineation.Marked(1, record, marks | {"P": marks["QRS"], "T": marks["QRS"]}, "")
    beats_at = np.array([100.0, 503, 1003, 1503, 2003, 2350, 2700, 3050])  # fast behind the last marked one
    assert delineation.within_marks(marked, beats_at).tolist() == [503, 1003, 1503, 2003]
    rate = {"rate_bpm": 80.0}
    assert delineation.rate_errors([marked], [rate], lambda record: beats_at).tolist() == [0]
    assert delineation.rate_errors([marked], [{}], lambda record: beats_at).size == 0


def test_delineation_takes_the_third_lead_of_those_marked():
    delineation = _benchmark("delineation")
    at = np.full((2, 12, 2), np.nan)
    at[0, :5] = [[10, 50], [12, 52], [14, 54], [16, 56], [18, 58]]
    at[1, :2] = 1
    outer = delineation._over_leads(at, delineation._third, delineation._third_last)
    assert np.array_equal(outer, [[14, 54], [np.nan, np.nan]], equal_nan=True)
    middle = delineation._over_leads(at, delineation._median, delineation._median)
    assert np.array_equal(middle, [[14, 54], [np.nan, np.nan]], equal_nan=True)


def test_pages_says_first_what_a_page_of_a_data_set_costs(tmp_path, capsys):
    pages = _benchmark("pages")
    pages._SHARD = 2
    pages.print_rendering(pages.write_ptbxl(tmp_path), 4)
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()]
    assert "ecg-vlm render" in rows[0][0] and [float(row[1]) > 0 for row in rows[2:]] == [True] * 4


def test_mutants_change_one_place_each(tmp_path):
    mutants = _benchmark("mutants")
    file = tmp_path / "a.py"
    file.write_text("def f(x):\n    return x + 1 if 0 < x <= 2 and x != 1 else -x\n")
    changes = [(m.line, m.change) for m in mutants.mutants(file, tmp_path)]
    assert len(changes) == len({m.source for m in mutants.mutants(file, tmp_path)}) == 10
    assert {"Lt -> LtE", "LtE -> Lt", "NotEq -> Eq", "and <-> or", "Add -> Sub", "condition turned", "2 -> 3"} <= {
        change for _, change in changes
    }
    assert {line for line, _ in changes} == {2}


def test_a_mutant_that_a_test_notices_does_not_survive(tmp_path):
    mutants = _benchmark("mutants")
    (tmp_path / "a.py").write_text("def f(x):\n    return x > 1\n")
    (tmp_path / "test_a.py").write_text("from a import f\n\ndef test_f():\n    assert f(2) and not f(0)\n")
    outcomes = {
        m.change: mutants.survives(m, tmp_path, ["test_a.py"]) for m in mutants.mutants(tmp_path / "a.py", tmp_path)
    }
    assert outcomes == {"Gt -> GtE": True, "1 -> 2": False}
    assert (tmp_path / "a.py").read_text() == "def f(x):\n    return x > 1\n"


def test_shipped_thresholds_are_a_yes_of_the_model_and_no_rarity_and_are_judged_on_other_records(tmp_path, capsys):
    calibrating, rng = _benchmark("calibrating"), np.random.default_rng(0)

    def write(name: str, fold: int) -> Path:
        lines = []
        for number in range(120):
            labels = ["SR", *(["AFIB"] if number % 6 == 0 else []), *(["WPW"] if number == 7 else [])]
            scores = [float(rng.uniform(0.3, 0.99 if code in labels else 0.7)) for code in STATEMENTS]
            own = f"{fold}-{number}"
            lines.append({"record_id": own, "fold": fold, "patient": own, "statements": labels, "view": "drawn"})
            lines[-1]["scores"] = scores
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"error": "no page"}]))
        return tmp_path / name

    calibrating.main(["fit", str(tmp_path / "c.json"), str(write("train.jsonl", 8))])
    curves = read_calibration(tmp_path / "c.json").curves
    assert curves.keys() == {"AFIB", "WPW"} and curves["WPW"].positives == 1
    for curve in curves.values():
        assert curve.threshold >= 0.5 and curve.apply(curve.threshold) >= 0.05 - 1e-9
    assert curves["WPW"].apply(curves["WPW"].threshold) == pytest.approx(0.05)
    calibrating.main(["judge", str(tmp_path / "c.json"), str(write("test.jsonl", 9))])
    as_given, calibrated = (line.split("|")[2:4] for line in capsys.readouterr().out.splitlines()[2:])
    assert float(calibrated[0]) < float(as_given[0]) and float(calibrated[1]) < float(as_given[1])
    with pytest.raises(InputError, match="fitted on 120 of the records"):
        calibrating.main(["judge", str(tmp_path / "c.json"), str(tmp_path / "train.jsonl")])
