"""The command line: exit codes, one-line errors, nothing half-written."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import ecg_vlm
from ecg_vlm.cli import COMMANDS, main, parse_arguments, progress
from ecg_vlm.cli.ask import images_and_questions
from ecg_vlm.images import open_page
from ecg_vlm.page_reading import read_page
from ecg_vlm.reader import Reader, open_image
from ecg_vlm.statement_scores import StatementScores
from render.dataset.parquet import open_dataset
from render.dataset.rows import Options, make_picture
from render.dialogues.wording import OPEN_QUESTION
from render.errors import InputError
from render.io import atomic_folder, atomic_write
from render.pages.options import options_named
from render.pages.style import sample_style
from render.record import LEADS
from render.simulator.simulate import simulate, simulate_infarct


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *words: object) -> str:
    """The one line of a command that must exit with 2."""
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "", (code, out, err)
    lines = [line for line in err.splitlines() if line.startswith("ecg-vlm: ")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.png"
    assert main(["render", "simulated", str(path), "--seed", "3"]) == 0
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "d"
    words = [
        "render",
        "simulated",
        str(folder),
        "--limit",
        "6",
        "--width",
        "672",
        "--seed",
        "5",
        "--closed",
        "4",
    ]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def tuned(pages, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "r"
    words = ["finetune", "quickstart", f"data.train={pages}", "--out", str(out), "--max-steps", "2"]
    assert main([*words, "train.images_per_batch=3"]) == 0
    return out


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from ecg_vlm.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'transformers', 'numba', 'datasets', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    call = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert call.returncode == 0, call.stderr
    for command in ("render", "finetune", "ask", "evaluate", "baseline", "parse"):
        assert command in call.stdout


@pytest.mark.parametrize("words", [["-m", "ecg_vlm"], ["-m", "ecg_vlm.cli"], ["-m", "ecg_vlm", "baseline"]])
def test_a_call_without_a_command_prints_the_help(words):
    call = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert call.returncode == 0 and "COMMAND" in call.stdout and not call.stderr


def test_every_command_has_examples_that_the_parser_takes():
    for name in COMMANDS:
        lines = import_module(f"ecg_vlm.cli.{name}").EXAMPLES.splitlines()
        assert len(lines) in (2, 3), name
        for line in lines:
            words = shlex.split(line.split("| ")[-1].split("> ")[0].strip(") "), comments=True)
            arguments = parse_arguments(words[words.index("ecg-vlm") + 1 :] if "ecg-vlm" in words else [name, "bash"])
            assert callable(arguments.run), line


def test_a_file_that_exists_is_not_overwritten(page, tmp_path, capsys):
    file = tmp_path / "a.txt"
    file.write_text("AF\n")
    for words in (
        ("parse", file, "--out", "codes.csv"),
        ("compare", "a", "b", "--out", "both.html"),
        ("ask", page, "--report", "report.html"),
        ("ask", page, "--show", "read.png"),
    ):
        out = tmp_path / words[-1]
        out.write_text("mine")
        assert f"{out}: already exists; name a new one" in refused(capsys, *words[:-1], out)
        assert out.read_text() == "mine"


def test_a_place_below_a_file_is_wrong_input(tmp_path, capsys):
    file = tmp_path / "a.txt"
    file.write_text("AF\n")
    assert f"{file}: File exists; name another place" in refused(capsys, "parse", file, "--out", file / "codes.csv")


def test_list_alone_prints_what_can_be_listed(capsys):
    words = json.loads(run(capsys, "list", "--json")[1])
    assert all(f"{word} " in run(capsys, "list")[1] and run(capsys, "list", word)[0] == 0 for word in words)
    assert "layouts" in words and "harness" in words


@pytest.mark.parametrize("what", ["layouts", "styles", "tasks", "forms", "statements", "recipes", "baselines"])
def test_list_prints_what_other_commands_take(what, capsys):
    code, out, _ = run(capsys, "list", what)
    names = json.loads(run(capsys, "list", what, "--json")[1])
    assert code == 0 and len(names) == len(out.splitlines()) > 2
    if what in ("layouts", "styles"):
        for name in names:
            rng = np.random.default_rng(0)
            assert name == "mixed" or (options_named(name) if what == "layouts" else sample_style(name, rng)), name
    if what == "statements":
        assert len(names) == 71


def test_quiet_leaves_the_results_alone(tmp_path, capsys):
    words = ["render", "simulated", tmp_path / "d", "--limit", 2, "--width", 448]
    code, out, err = run(capsys, *words, "--quiet")
    assert code == 0 and err == "" and "2 pages" in out
    code, out, err = run(capsys, "--quiet", "render", "simulated", tmp_path / "e", *words[3:])
    assert code == 0 and err == "" and "2 pages" in out


def test_a_long_wait_says_what_it_is_for(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SILENCE_S", 0.01)
    progress.configure(quiet=False, verbose=True)
    with progress.waiting("counting"):
        time.sleep(0.2)
    monkeypatch.setattr(progress, "_SILENCE_S", 60.0)
    with progress.waiting("never shown"):
        pass
    assert capsys.readouterr().err == "counting ...\n"


def test_work_begins_where_no_thread_can(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", fail)
    monkeypatch.setattr("threading.Thread.start", lambda thread: pytest.fail("it would wait for the thread"))
    with progress.waiting("counting"):
        pass


def test_a_missing_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trl", None)  # importing it then raises ModuleNotFoundError
    for module in [name for name in sys.modules if name in ("recipes.train", "recipes.trainer")]:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr("recipes." + module.rpartition(".")[2], raising=False)
    assert "pip install 'ecg-vlm[train]'" in refused(capsys, "finetune", "quickstart", "--out", tmp_path / "r")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0 and "evaluate" in out and "per-record" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_an_argument_by_what_it_is(command, capsys):
    """FOLDER in place of folder, N in place of LIMIT: where help or an error says OUT, it is the same OUT."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert not re.search(r"--[a-z-]+ (LIMIT|SEED|WORKERS|WIDTH|[A-Z]+_[A-Z_]+)|[\[ ][a-z]+( \.\.\.)?\]?$", usage), usage


def test_the_package_says_its_version_and_offers_the_reader(capsys):
    assert ecg_vlm.__version__ == version("ecg-vlm")
    assert ecg_vlm.Reader is Reader and ecg_vlm.open_image is open_image
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ecg-vlm {ecg_vlm.__version__}\n"


def test_a_process_exits_with_the_code(tmp_path):
    call = subprocess.run(
        [sys.executable, "-m", "ecg_vlm.cli", "ask", str(tmp_path / "no.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert call.returncode == 2 and call.stderr.count("\n") == 1 and "no such file or folder" in call.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetun"], "finetun: no such command; did you mean finetune?"),
        (["render", "simulated", "x", "--widht", "500"], "unknown argument --widht; did you mean --width?"),
        (["baseline", "train", "fcn_wang", "--data", "simulated", "--out", "x", "--epoch=1x"], "1x"),
        (["list", "layuots"], "ecg-vlm: list: argument what: invalid choice"),
        (["serve", "extra"], "unknown argument extra; see ecg-vlm serve --help"),
        (["ask", "", "What?"], "the name of a picture is empty"),
        (["ask", "What is the rhythm?", "a.png"], "if it is a question, name the image first: a.png"),
        (["digitize", "a.jpg", "b.jpg"], "b.jpg: is the name of a file; name a folder for the results"),
        (["compare", "a", "b", "--out", "x.pdf"], "--out x.pdf: the page is written as HTML; name an .html file"),
        (["render", "simulated", "x.svg"], "x.svg: pages are written as .png or .jpg"),
        (["render", "ptbxl:.", "x"], "no such file; name the folder of PTB-XL that has it"),
        (["render", "simulated"], "required: OUT"),
        (["render", "simulatd", "x"], "simulated"),
        (["render", "ptbxl:/nowhere", "x"], "/nowhere"),
        (["render", "simulated", "x", "--folds", "0-3"], "argument --folds: '0-3': '0-3' is not"),
        (["render", "simulated", "x", "--limit", "0"], "'0' is not a whole number from 1"),
        (["render", "simulated", "x", "--width", "7"], "'7' is not a whole number from 300"),
        (["render", "simulated", "x", "--layout", "3x5"], "3x4"),
        (["render", "simulated", "x", "--seed", "-1"], "'-1'"),
        (["finetune", "quikstart"], "these ship: "),
        (["finetune", "quickstart", "--speed"], "unknown argument --speed"),
        (["finetune", "quickstart", "data.train=/nowhere"], "no such data set folder"),
        (["ask", "/nowhere.png"], "no such file or folder"),
        (["evaluate", "nano", "--data", "/nowhere", "--out", "x"], "no such data set folder"),
        (["evaluate", "nano", "--data", "ptbxl:D", "--out", "x"], "create one with: ecg-vlm render ptbxl:D pages"),
        (["evaluate", "nano", "--out", "x"], "a model needs pages to judge on; name their folder with --data"),
        (["evaluate", "--from", "r", "--compare", "nano", "--out", "x"], "--compare does not go with --from"),
        (["baseline", "train", "vgg", "--data", "simulated", "--out", "x"], "no such network"),
        (["parse", "/nowhere.txt"], "cannot be read"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_render_refuses_to_overwrite(page, pages, capsys):
    assert "already exists; name a new one" in refused(capsys, "render", "simulated", page)
    assert "already exists and is not empty" in refused(capsys, "render", "simulated", pages)


def test_ask_answers_and_scores(page, capsys):
    code, out, _ = run(capsys, "ask", page, "Is this a normal ECG?")
    assert code == 0 and out.strip()
    code, out, _ = run(capsys, "ask", page, "Is this a normal ECG?", "What is the rhythm?", "--statements", "--json")
    told = json.loads(out)
    assert code == 0 and [a["question"] for a in told["answers"]] == [
        "Is this a normal ECG?",
        "What is the rhythm?",
    ]
    assert len(told["scores"]) == 71 and all(0 <= p <= 1 for p in told["scores"].values())
    reader = Reader.load()
    answer = reader.answer(reader.prefill([read_page(open_page(page)).view]), OPEN_QUESTION)
    code, out, _ = run(capsys, "ask", page, "--statements")
    lines = out.splitlines()
    assert code == 0 and lines[0] == answer.text  # where a page cannot be read, it says so above the numbers
    measured = lines.index(next(line for line in lines if line.startswith("Measured on the digitized leads: rate ")))
    assert measured == 1 + bool(answer.contradicted) and lines[measured + 1].startswith("P(present), * from ")
    assert len(lines) == measured + 2 + 71


def test_ask_takes_images_first_and_questions_behind(page, tmp_path, capsys):
    assert images_and_questions([str(page), "Is it AF?", "AF?"]) == ([str(page)], ["Is it AF?", "AF?"])
    assert images_and_questions([str(page), str(tmp_path)]) == ([str(page), str(tmp_path)], [])
    assert images_and_questions(["a.png", "b.jpg", "What is it?"]) == (["a.png", "b.jpg"], ["What is it?"])
    assert images_and_questions(["a.png", "Is this a.png?"]) == (["a.png"], ["Is this a.png?"])
    assert "name the images first" in refused(capsys, "ask", page, "Is it AF?", page)
    assert "b.png: no such file" in refused(capsys, "ask", page, tmp_path / "b.png")


def test_ask_reads_a_folder_a_page_an_object(page, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        shutil.copy(page, tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    code, out, err = run(capsys, "ask", tmp_path, "-q", "Is it AF?", "-q", "Should I go to hospital?", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [t["image"] for t in told] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert "c.png: not an image" in err
    for t in told:
        assert t["schema_version"] == 1 and t["readable"] and not t["refusal_reason"] and t["view"] == "digitized leads"
        assert t["page_as_read"]["layout"] == "3x4+1R" and t["measured_on"] == "digitized leads"
        assert {"rate_bpm", "qrs_ms", "qt_ms"} <= t["measurements"].keys()
        af, hospital = t["answers"]
        assert af["understood"] and not hospital["understood"] and not hospital["answer"].startswith(("No", "Yes"))


def test_ask_refuses_a_folder_of_which_no_file_can_be_read(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    code, out, err = run(capsys, "ask", tmp_path)
    assert code == 2 and out == "" and err.splitlines()[-1].endswith("none of 2 files can be read")


def test_ask_decides_once_whether_a_picture_can_be_read(tmp_path, capsys):
    """Noise is no ECG, whatever is asked about it."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    words = ("Is it AF?", "What is the rhythm?", "--statements", "--json")
    code, out, _ = run(capsys, "ask", tmp_path / "noise.png", *words)
    told = json.loads(out)
    assert code == 0 and not told["readable"] and told["refusal_reason"] and told["scores"] == {}
    assert len({answer["answer"] for answer in told["answers"]}) == 1


def test_ask_shows_the_page_as_it_was_read(page, tmp_path, capsys):
    assert run(capsys, "ask", page, "--show", tmp_path / "read.png")[0] == 0
    with Image.open(tmp_path / "read.png") as image:
        colours = {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}
    assert (214, 39, 40) in colours and (31, 119, 180) in colours
    assert "--show is for one page" in refused(capsys, "ask", page, page, "--show", tmp_path / "x.png")
    assert "--engine ray answers into --out FILE.jsonl" in refused(capsys, "ask", page, "--engine", "ray")
    assert "name a .png file" in refused(capsys, "ask", page, "--show", tmp_path / "x.jpg")
    assert "name a .jsonl file" in refused(capsys, "ask", page, "--out", tmp_path / "x.csv")
    assert "--workers 2: one process holds a model here" in refused(capsys, "ask", page, "--workers", 2)


def test_a_page_with_st_elevation_is_not_called_normal_without_a_warning(tmp_path, capsys):
    record = simulate_infarct(3, "AMI", "acute")
    picture, _ = make_picture(record, 0, Options(lenient=True))
    (tmp_path / "stemi.png").write_bytes(picture.data)
    code, out, _ = run(capsys, "ask", tmp_path / "stemi.png", "--json")
    told = json.loads(out)
    assert code == 0 and told["st_elevation_mv"] and "ST elevation of 0.2 mV" in told["warnings"][0]


def test_digitize_writes_millivolts_of_every_page(page, tmp_path, capsys):
    shutil.copy(page, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    code, text, _ = run(capsys, "digitize", tmp_path / "a.png", tmp_path / "b.png", out)
    assert code == 0 and "a: 3x4+1R, 12 leads, 25 mm/s, 10 mm/mV" in text and "b: refused: " in text
    assert sorted(file.name for file in out.iterdir()) == [
        "a.csv", "a.dat", "a.hea", "a.json", "a.parquet", "a.png", "b.json", "digitized.json",
    ]  # fmt: skip
    record = wfdb.rdrecord(str(out / "a"))
    assert record.fs == 500 and record.sig_name == list(LEADS) and record.units == ["mV"] * 12
    lead_ii = record.p_signal[:, 1]
    assert np.isfinite(lead_ii).mean() > 0.95 and np.isfinite(record.p_signal[:, 6]).mean() < 0.3  # V1 has a quarter
    with (out / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert abs(float(rows[1000]["II"]) - lead_ii[1000]) < 0.002 and rows[10]["V6"] == ""
    before = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.name != "digitized.json"}
    assert "already exists" in refused(capsys, "digitize", tmp_path / "a.png", out)
    assert run(capsys, "digitize", tmp_path / "a.png", tmp_path / "b.png", out, "--resume")[0] == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}
    Image.new("RGB", (400, 300), "white").save(tmp_path / "b.png")  # another picture of that name is read anew
    run(capsys, "digitize", tmp_path / "a.png", tmp_path / "b.png", out, "--resume")
    assert before[out / "a.hea"] == (out / "a.hea").stat().st_mtime_ns
    assert before[out / "b.json"] != (out / "b.json").stat().st_mtime_ns
    assert "their results would have one name" in refused(
        capsys, "digitize", tmp_path / "a.png", tmp_path / "a.png", tmp_path / "o2"
    )


def test_digitize_leaves_nothing_of_a_picture_that_cannot_be_read(tmp_path, capsys):
    picture = tmp_path / "scans" / "ward" / "b.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"no picture")
    assert "not an image that can be read" in refused(capsys, "digitize", picture, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "is the name of a file" in refused(capsys, "digitize", picture, picture)
    subfolders = f'for those of its subfolders write "{tmp_path / "scans"}/**/*"'
    assert subfolders in refused(capsys, "digitize", tmp_path / "scans", tmp_path / "out")


def test_a_log_file_has_the_last_line_of_a_progress_once(capsys):
    with progress.progress_bar("pages") as show:
        for count in (0, 2, 2, 2):
            show("pages", count, 2)
    assert capsys.readouterr().err.count("2/2 pages") == 1


def test_a_place_that_cannot_be_written_is_named_and_not_its_temporary_file(tmp_path, monkeypatch, capsys):
    def refuse(suffix: str, prefix: str, folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder / f"{prefix}x{suffix}"))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for write in (atomic_write, atomic_folder):
        with pytest.raises(PermissionError) as failure, write(tmp_path / "a.png"):
            pass
        assert failure.value.filename == str(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("AF\n")
    out = tmp_path / "codes.csv"
    assert f"{out}: Permission denied; name another place" in refused(capsys, "parse", tmp_path / "a.txt", "--out", out)


def test_the_home_of_a_user_who_does_not_exist_is_a_missing_folder(tmp_path, capsys):
    for source in ("~nobody-here/x", "ptbxl:~nobody-here/x", "pictures:~nobody-here/x"):
        assert "~nobody-here/x" in refused(capsys, "render", source, tmp_path / "out")


def test_a_record_that_digitize_names_opens_with_wfdb(tmp_path, capsys):
    np.save(tmp_path / "ECG of 3.4. (1).npy", simulate(3).signal)
    code, _, _ = run(capsys, "digitize", tmp_path / "ECG of 3.4. (1).npy", tmp_path / "out", "--sampling-rate", "500")
    (header,) = (tmp_path / "out").glob("*.hea")
    assert code == 0 and wfdb.rdrecord(str(header.with_suffix(""))).sig_len == 5000


def test_digitize_takes_a_waveform_as_it_is(tmp_path, capsys):
    np.save(tmp_path / "w.npy", simulate(1, ["SR"]).signal)
    code, text, _ = run(capsys, "digitize", tmp_path / "w.npy", tmp_path / "out", "--sampling-rate", "500")
    assert code == 0 and "w: waveform, 12 leads" in text
    record = wfdb.rdrecord(str(tmp_path / "out" / "w"))
    assert np.abs(record.p_signal.T - simulate(1, ["SR"]).signal).max() < 0.001


def test_ask_says_where_an_answer_contradicts_yes_and_no(page, capsys, monkeypatch):
    said = "This ECG shows a pacemaker rhythm. No sinus rhythm."
    monkeypatch.setattr(Reader, "ask", lambda reader, seen, questions, **_: [said] * len(questions))
    monkeypatch.setattr(Reader, "score", lambda reader, seen, codes: StatementScores(dict.fromkeys(codes, 0.25)))
    code, out, _ = run(capsys, "ask", page)
    assert code == 0 and [line for line in out.splitlines() if not line.startswith("Measured on")] == [
        said,
        "  (It says otherwise when asked about each alone; P(present): a pacemaker rhythm 0.25)",
    ]
    monkeypatch.setattr(Reader, "score", lambda reader, seen, codes: StatementScores(dict.fromkeys(codes, 0.75)))
    (told,) = json.loads(run(capsys, "ask", page, "--json")[1])["answers"]
    assert told["answer"] == said and told["contradicted"] == {"SR": 0.75}


def test_many_questions_from_one_look_answer_like_one_by_one(page):
    reader, image = Reader.load(), open_image(page)
    questions = ["What does this ECG show?", "What is the rhythm?", "Is there ST depression on this ECG?"]
    assert reader.ask(image, questions) == [reader.ask(image, [q])[0] for q in questions]
    assert reader.ask_many([image, image], questions[0]) == reader.ask(image, questions[:1]) * 2
    one = reader.score(image, ["AFIB"])["AFIB"]
    assert abs(reader.score(image)["AFIB"] - one) < 1e-4


def test_how_a_model_is_loaded_is_said_on_the_command_line(page, capsys):
    code, out, _ = run(capsys, "ask", page, "--dtype", "bfloat16", "--device", "cpu", "--batch", "1", "--json")
    assert code == 0 and json.loads(out)["answers"][0]["answer"]
    assert "device moon: torch cannot use it here" in refused(capsys, "ask", page, "--device", "moon")
    assert "invalid choice: 'int3'" in refused(capsys, "evaluate", "nano", "--quantization", "int3", "--out", "x")


@pytest.mark.parametrize("size", [(1, 1), (30, 2000), (2000, 30), (672, 336), (1700, 2200)])
def test_any_shape_of_image_is_answered(size, tmp_path, capsys):
    Image.new("L", size, 200).save(tmp_path / "p.png")
    assert run(capsys, "ask", tmp_path / "p.png")[0] == 0


def test_a_decompression_bomb_is_refused(tmp_path, capsys):
    for side in (9_000, 20_000):  # beyond our limit, and beyond Pillow's own
        Image.new("1", (side, side)).save(tmp_path / "bomb.png")
        assert "more than 64 megapixels" in refused(capsys, "ask", tmp_path / "bomb.png")


@pytest.fixture(scope="module")
def png_bytes() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 200), junk=st.binary(min_size=1, max_size=8), at=st.floats(0, 1))
def test_damaged_images_are_read_or_refused(png_bytes, cut, junk, at, tmp_path):
    body = bytearray(png_bytes[: len(png_bytes) - cut])
    where = int(at * len(body))
    body[where : where + len(junk)] = junk
    (tmp_path / "x.png").write_bytes(bytes(body))
    try:
        assert open_image(tmp_path / "x.png").mode == "RGB"
    except InputError as error:
        assert "\n" not in str(error)


def test_the_whole_road(pages, tuned, page, tmp_path, capsys):
    held_out, cnn = tmp_path / "held", tmp_path / "cnn"
    assert (
        run(capsys, "render", "simulated", held_out, "--limit", 10, "--width", 672, "--seed", 6, "--closed", 4)[0] == 0
    )
    assert run(capsys, "ask", page, "--model", tuned)[0] == 0
    same = ["--data", "simulated", "--limit", 10, "--seed", 6]
    others = ["--data", "simulated", "--limit", 10, "--seed", 16]
    assert run(capsys, "baseline", "train", "resnet1d_wang", *others, "--epochs", 1, "--out", cnn)[0] == 0
    assert run(capsys, "baseline", "predict", cnn, *same, "--out", tmp_path / "p")[0] == 0
    words = [
        "evaluate",
        tuned,
        "--compare",
        "nano",
        "--compare",
        tmp_path / "p" / "scores.parquet",
        "--data",
        held_out,
    ]
    code, out, _ = run(capsys, *words, "--out", tmp_path / "report")
    assert code == 0 and "report.html" in out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [s["name"] for s in report["systems"]] == ["nano, tuned", "nano, untuned", "p"] and report["records"] == 10
    assert (tmp_path / "report" / "scores.parquet").is_file() and (tmp_path / "report" / "answers.jsonl").is_file()
    again = [
        "evaluate",
        tmp_path / "report" / "scores.parquet",
        "--data",
        held_out,
        "--out",
        tmp_path / "again",
    ]
    assert run(capsys, *again)[0] == 0
    kept = json.loads((tmp_path / "again" / "report.json").read_text())
    assert kept["systems"][0]["macro_auc"] == report["systems"][0]["macro_auc"]


def test_judging_on_the_training_records_is_refused(pages, tuned, tmp_path, capsys):
    line = refused(capsys, "evaluate", tuned, "--data", pages, "--out", tmp_path / "r")
    assert "tuned on 6 of the records" in line and not (tmp_path / "r").exists()
    assert run(capsys, "evaluate", tuned, "--data", pages, "--out", tmp_path / "r", "--force")[0] == 0
    assert "tuned on 6 of the records" in (tmp_path / "r" / "report.json").read_text()


def test_unfinished_or_damaged_runs_are_refused(tuned, page, tmp_path, capsys):
    broken = tmp_path / "run"
    broken.mkdir()
    for file in ("recipe.yaml", "adapter_config.json", "adapter_model.safetensors"):
        (broken / file).write_bytes((tuned / file).read_bytes())
    assert "did not finish" in refused(capsys, "ask", page, "--model", broken)
    facts = json.loads((tuned / "run.json").read_text())
    (broken / "run.json").write_text(json.dumps({**facts, "base_sha256": "0"}))
    assert "made for another nano" in refused(capsys, "ask", page, "--model", broken)
    (broken / "run.json").write_text("{")
    assert "run.json: cannot be read" in refused(capsys, "ask", page, "--model", broken)
    (broken / "run.json").write_text(json.dumps(facts))
    (broken / "adapter_model.safetensors").write_bytes(b"\x00" * 100)
    assert "adapter" in refused(capsys, "ask", page, "--model", broken)


def test_parse_reads_lines_and_jsonl(tmp_path, capsys):
    (tmp_path / "a.txt").write_text('Atrial fibrillation. No LVH.\n{"answer": "Sinus rhythm."}\n\n')
    code, out, _ = run(capsys, "parse", tmp_path / "a.txt")
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(told) == 3
    assert told[0]["present"] == ["AFIB"] and told[0]["absent"] == ["LVH"] and told[1]["present"] == ["SR"]
    (tmp_path / "b.txt").write_text('{"text": 1}\n')
    assert "line 1" in refused(capsys, "parse", tmp_path / "b.txt")


@pytest.mark.parametrize("form", ["a.json", "a.csv", "a.jsonl", "-"])
def test_parse_passes_ids_on_and_limits_the_statements(form, tmp_path, capsys, monkeypatch):
    rows = [
        {
            "id": 7,
            "record_id": "00015",
            "answer": "Yes, and\nsinus rhythm.",
            "question": "Is it AF?",
        },
        {"id": 8, "record_id": "00016", "answer": "LVH, no LBBB", "question": ""},
    ]
    lines = [json.dumps(row) for row in rows]
    table = 'id,record_id,answer,question\n7,00015,"Yes, and\nsinus rhythm.",Is it AF?\n'
    table += '8,00016,"LVH, no LBBB",\n'
    text = {"a.json": f"[{','.join(lines)}]", "a.jsonl": "\n".join(lines)}.get(form, "\ufeff" + table)
    (tmp_path / form).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    file = "-" if form == "-" else tmp_path / form
    code, out, _ = run(capsys, "parse", file, "--statements", "AFIB,LVH,CLBBB")
    first, second = (json.loads(line) for line in out.splitlines())
    assert code == 0 and first["present"] == ["AFIB"] and str(first["id"]) == "7" and first["record_id"] == "00015"
    assert (second["present"], second["absent"]) == (["LVH"], ["CLBBB"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run(capsys, "parse", file, "--out", tmp_path / "codes.csv")[:2] == (0, "")
    with (tmp_path / "codes.csv").open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["present"] == "AFIB SR" and first["question"] == "Is it AF?" and second["id"] == "8"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,reply\n1,SR\n", "no column of answers"),
        ("a.csv", "id,answer\n1,SR, and LVH\n", "line 2: more fields than the header has"),
        ("a.csv", 'id,answer\n1,"SR\n', "line 2: not CSV"),
        ("a.json", '[3, {"answer": "SR"}]', "item 1: needs a JSON object"),
        ("a.json", "[{", "not JSON that can be read"),
        ("a.jsonl", "\nSR", "line 2: not JSON"),
        ("a.jsonl", '{"answer": null, "id": 1}', "line 1: needs a text under answer"),
    ],
)
def test_parse_names_what_is_wrong_with_a_file(name, text, message, tmp_path, capsys):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert message in refused(capsys, "parse", tmp_path / name)


def test_parse_refuses_unknown_codes_and_formats(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("SR")
    assert "did you mean AFIB?" in refused(capsys, "parse", tmp_path / "a.txt", "--statements", "SR,AFIBB")
    assert "must end in .jsonl or .csv" in refused(capsys, "parse", tmp_path / "a.txt", "--out", tmp_path / "x.txt")


def test_parse_counts_assertive_wording_as_doubt_when_cautious(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("Consistent with atrial fibrillation.")
    assert json.loads(run(capsys, "parse", tmp_path / "a.txt")[1])["present"] == ["AFIB"]
    assert json.loads(run(capsys, "parse", tmp_path / "a.txt", "--cautious")[1])["uncertain"] == ["AFIB"]


def test_real_records_become_pages_and_are_judged(real_ptbxl, tmp_path, capsys):
    words = ["render", f"ptbxl:{real_ptbxl}", tmp_path / "d", "--folds", 9, "--limit", 8, "--width", 672]
    assert run(capsys, *words)[0] == 0
    rows = open_dataset(tmp_path / "d")
    assert len(rows) == 8 and set(rows["fold"]) == {9} and all(rows["statements"])
    assert run(capsys, "evaluate", "nano", "--data", tmp_path / "d", "--out", tmp_path / "r")[0] == 0
    assert json.loads((tmp_path / "r" / "report.json").read_text())["records"] == 8


def test_one_record_as_a_page(write_wfdb, ecg_mv, tmp_path, capsys):
    header = write_wfdb(tmp_path / "w", "rec", ecg_mv)
    assert run(capsys, "render", header, tmp_path / "page.png")[0] == 0
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1120, 560)
    (tmp_path / "w" / "rec.dat").write_bytes((tmp_path / "w" / "rec.dat").read_bytes()[:1000])
    line = refused(capsys, "render", header, tmp_path / "other.png")
    assert "rec.dat" in line and not (tmp_path / "other.png").exists()
