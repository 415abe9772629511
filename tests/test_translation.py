"""What a person reads in German: every sentence of the program has a row in the table, and the rows are used."""

from __future__ import annotations

import ast
import builtins
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

import ecg_vlm
from ecg_vlm.answers import in_language, statement_answer
from ecg_vlm.page_answers import UNITS, PageAnswers, page_warnings
from ecg_vlm.page_reading import PICTURE, PageReading
from ecg_vlm.page_report import page_report_html, page_report_pdf
from ecg_vlm.questions import read_question
from ecg_vlm.reader import QuestionAnswer
from ecg_vlm.rhythm_strip import RhythmStrip, StripModel
from ecg_vlm.statement_scores import GROUPS, StatementScores
from ecg_vlm.translation import translate
from render.dialogues import quantities
from render.dialogues.quantities import QUANTITIES
from render.dialogues.wording import OPEN_QUESTION, REFUSALS
from render.statements import STATEMENTS

ROOT = Path(ecg_vlm.__file__).parents[1]
TABLE: dict[str, str] = json.loads((ROOT / "ecg_vlm" / "messages_de.json").read_text(encoding="utf-8"))

# What the page, ask and a report show of these modules: errors, reasons and remarks. Not in them: what only a program
# that speaks with the API can do wrong, and what damaged files of machines lack in detail.
MODULES = (
    "recipes/digitizer/digitize.py", "ecg_vlm/page_reading.py", "ecg_vlm/images.py", "ecg_vlm/documents.py",
    "ecg_vlm/serve/correction.py", "ecg_vlm/serve/page_files.py", "ecg_vlm/serve/reading_process.py",
    "ecg_vlm/serve/jobs.py", "ecg_vlm/serve/work_queue.py", "ecg_vlm/serve/service.py", "ecg_vlm/serve/models.py",
    "render/sources/lead_names.py", "render/sources/recording.py", "render/sources/text_table.py",
    "render/sources/waveform_file.py",
)  # fmt: skip
ONLY_IN_COMMANDS = {  # folders and paths, which a browser does not send
    "{}: the name is no text in UTF-8; rename the file", "{}: no such folder; check the path",
    "{}: no waveform file in this folder or below; {} can be read",
    "{}: cannot be read ({}); check the path and its permissions", "the name of a picture is empty; write it out",
}  # fmt: skip


def sentences_of(module: str) -> Iterator[str]:
    """The texts of errors and remarks in a module's source, with {} for what is put in."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func)
        is_error = name.endswith("Error") and not hasattr(builtins, name)  # a built-in one is no message for a person
        is_remark = name == "remarks.append"
        text = _text(node.args[0])
        if (is_error or is_remark) and " " in text:
            yield text


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(value, ast.FormattedValue) else _text(value) for value in node.values)
    return ""


@pytest.mark.parametrize("module", MODULES)
def test_every_sentence_of_a_module_has_its_german(module: str) -> None:
    known = {re.sub(r"\{\w+\}", "{}", english) for english in TABLE} | ONLY_IN_COMMANDS
    sentences = set(sentences_of(module))
    assert sentences
    assert sorted(sentences - known) == []


def test_a_row_has_the_placeholders_of_its_sentence_and_is_found() -> None:
    for english, german in TABLE.items():
        names = [name for _, name, _, _ in string.Formatter().parse(english) if name]
        assert {name for _, name, _, _ in string.Formatter().parse(german) if name} <= set(names), english
        values = {name: f"<{name}>" for name in names}
        assert translate(english.format_map(values), "de") == german.format_map(values)
        assert translate(english, "en") == english


def test_words_of_the_program_are_in_the_table() -> None:
    words = [*(name for name, _ in UNITS.values() if name not in ("QRS", "QT", "QTc (Fridericia)"))]
    words += [group for group in GROUPS if group != "ST-T"]
    words += [form.format(leads="V1") for forms in REFUSALS["en"].values() for form in forms]
    assert [word for word in words if word != "form" and translate(word, "de") == word] == []


def test_a_value_that_looks_like_a_placeholder_or_a_sentence_is_a_value() -> None:
    assert translate("{0}: the file is empty; export it again", "de").startswith("{0}: Die Datei ist leer")
    assert translate("faint: the file is empty; export it again", "de").startswith("faint: ")
    assert translate("x" * 100_000, "de") == "x" * 100_000


@pytest.mark.parametrize("key", QUANTITIES)
def test_numbers_in_german(key: str) -> None:
    question = read_question({"rate_bpm": "Wie hoch ist die Herzfrequenz?"}.get(key, "Wie lang ist die PQ-Zeit?"))
    assert question.kind == "quantity" and question.language == "de"
    assert quantities._OPEN_ANSWERS
    for form in quantities._OPEN_ANSWERS:
        text = quantities._format(form, key, value="75")
        assert in_language(text, question) == translate(text, "de")
        assert not re.search(r"\b(is|about|the|of|degrees|beats|interval)\b", in_language(text, question)), text


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Ist dieses EKG normal?", "Nein."),
        ("Ist das kein Vorhofflimmern?", "Dieses EKG zeigt: Vorhofflimmern."),
        ("Liegt Vorhofflimmern oder Vorhofflattern vor?", "Dieses EKG zeigt: Vorhofflimmern."),
        ("Vorhofflimmern und Sinusrhythmus?", "Vorhofflimmern: ja. Sinusrhythmus: nein."),
        ("Liegt ein Herzinfarkt vor?", "Ja: Vorderwandinfarkt."),
    ],
)
def test_answers_from_the_scores_in_german(question: str, answer: str) -> None:
    scores = StatementScores({code: 0.9 if code in ("AFIB", "AMI") else 0.1 for code in STATEMENTS})
    assert statement_answer(read_question(question), scores) == answer


def test_an_open_answer_in_german_names_the_same_statements() -> None:
    question = read_question("Was zeigt dieses EKG?")
    assert in_language("I see atrial fibrillation and low QRS voltage.", question) == "Vorhofflimmern, Niedervoltage."
    assert in_language("This ECG shows sinus rhythm.", read_question("Rhythmus?")) == "Sinusrhythmus."
    assert in_language("I see sinus rhythm.", read_question("What does this ECG show?")) == "I see sinus rhythm."


def test_one_lead_in_german() -> None:
    for strip in (
        RhythmStrip("II", 52.0, irregular, p_waves) for irregular in (False, True) for p_waves in (False, True)
    ):
        model = StripModel(strip, "nano")
        english, german = (model.answer(None, q).text for q in ("Which rhythm is it?", "Welcher Rhythmus liegt vor?"))
        assert translate(english, "de") == german and "52 Schläge pro Minute in Ableitung II" in german
        assert not ENGLISH.search(german)
        rest = model.answer(None, "Liegt ein Herzinfarkt vor?").text
        assert rest.startswith("Eine Ableitung zeigt nur") and rest.endswith(german)


def test_an_answer_that_a_measurement_contradicts_comes_with_a_warning() -> None:
    image = Image.new("RGB", (60, 30), "white")
    measured = {"rate_bpm": 74.0, "pr_ms": 160.0, "qrs_ms": 142.0}
    reading = PageReading(image, PICTURE, None, "", measured)

    def warnings(text: str, contradicted: dict[str, float] | None = None) -> tuple[str, ...]:
        return page_warnings(reading, [QuestionAnswer(OPEN_QUESTION, text, contradicted=contradicted or {})])

    assert warnings("Sinus rhythm, left bundle branch block.") == ()
    (slow,) = warnings("I see sinus bradycardia.")
    assert slow == "sinus bradycardia does not fit the measured rate of 74/min; check it on the page"
    assert translate(slow, "de") == (
        "Sinusbradykardie: passt nicht zum gemessenen Wert (Frequenz 74/min); bitte auf dem Blatt nachmessen"
    )
    assert warnings("I see sinus bradycardia.", {"SBRAD": 0.2}) == ()  # taken back already
    (wide,) = warnings("This is a normal ECG.")
    assert "measured QRS of 142 ms" in wide
    assert page_warnings(PageReading(image, PICTURE), [QuestionAnswer(OPEN_QUESTION, "Sinus bradycardia.")]) == ()


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("What is the heart rate?", "About 85 beats per minute.", "85/min"),
        ("What is the heart rate?", "About 79 beats per minute.", ""),  # nearer than both errors
        ("What is the heart rate?", "I cannot tell.", ""),
        ("Wie ist die Herzfrequenz?", "Etwa 60 Schläge pro Minute.", "60/min"),
        ("Is the heart rate above 100 per minute?", "Yes.", '"Yes."'),
        ("Is the heart rate above 100 per minute?", "No.", ""),
        ("Is the QRS duration 120 ms or longer?", "No.", ""),  # 142 ms is too near
        ("What is the QRS axis?", "About -170 degrees: extreme axis deviation.", ""),  # 175 is 15 degrees away
        ("What is the QRS axis?", "About -90 degrees: left axis deviation.", "-90 degrees"),
        ("What is the QT interval?", "400 ms.", ""),  # not measured
    ],
)
def test_a_number_that_a_measurement_contradicts_comes_with_a_warning(question: str, answer: str, said: str) -> None:
    measured = {"rate_bpm": 74.0, "qrs_ms": 142.0, "qrs_axis_deg": 175.0}
    reading = PageReading(Image.new("RGB", (60, 30), "white"), PICTURE, None, "", measured)
    warnings = page_warnings(reading, [QuestionAnswer(question, answer)])
    assert [warning.partition(" does not fit the measured ")[0] for warning in warnings] == ([said] if said else [])
    assert all("bitte auf dem Blatt nachmessen" in translate(warning, "de") for warning in warnings)


ENGLISH = re.compile(r"\b(the|of|is|are|and|was|rhythm|read|page|each|model|from|not|with|no)\b", re.IGNORECASE)


def test_a_report_in_german(tmp_path: Path) -> None:
    from ecg_vlm.images import InputPage

    page = InputPage(Image.new("RGB", (60, 30), "white"), source="a.png", number=2, count=3)
    reading = PageReading(page.image, PICTURE, None, "", {"rate_bpm": 75.0, "qrs_axis_deg": 30.0}, {"V1": 0.3})
    scores = StatementScores(dict.fromkeys(STATEMENTS, 0.2))
    request = {"model": "nano"}
    warnings = page_warnings(reading, ())
    result = PageAnswers(page, request, reading, "", (), scores, warnings).to_json()
    leads = [{"lead": "I", "start_s": 0, "seconds": 2.5, "quality": 0.7, "missing_share": 0.2, "remarks": ["faint"]}]
    facts = {"layout": "3x4", "mm_per_s": 25, "mm_per_mv": 10, "leads": leads}
    result |= {"page_as_read": facts, "refusal_reason": "not an ECG; 12 x 9 pixels are too few; 400 are needed"}
    html = page_report_html(result, "de")
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)
    assert "Vorhofflimmern" in text and "Frequenz" in text and "sofort befunden lassen" in text and "Grad" in text
    assert ENGLISH.findall(text) == [] and '<html lang="de">' in html
    pdf = pypdfium2.PdfDocument(page_report_pdf(result, "de"))
    assert ENGLISH.findall(pdf[0].get_textpage().get_text_range()) == []
    assert ENGLISH.search(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page_report_html(result), flags=re.DOTALL))
