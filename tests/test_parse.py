"""From words to statements: over a thousand answers written for this purpose, with traps for other parsers."""

from __future__ import annotations

import csv
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.parser.choices import letter_picks, options_in
from eval.parser.lexicon import expand, lexicon
from eval.parser.parse import Finding, parse, parse_yes_no, refusal
from eval.parser.tokenizer import _fold
from render.dialogues.wording import OTHER_NAMES, closed_forms, closed_question
from render.statements import STATEMENTS

ANSWERS = Path(__file__).parent / "answers.csv"
CHAT = Path(__file__).parent / "answers_chat.csv"
UNSEEN = Path(__file__).parent / "answers_unseen.csv"
UNSEEN2 = Path(__file__).parent / "answers_unseen2.csv"
UNSEEN3 = Path(__file__).parent / "answers_unseen3.csv"
UNSEEN4 = Path(__file__).parent / "answers_unseen4.csv"
UNSEEN5 = Path(__file__).parent / "answers_unseen5.csv"
UNSEEN6 = Path(__file__).parent / "answers_unseen6.csv"
UNSEEN7 = Path(__file__).parent / "answers_unseen7.csv"
UNSEEN7B = Path(__file__).parent / "answers_unseen7b.csv"
UNSEEN8 = Path(__file__).parent / "answers_unseen8.csv"
UNSEEN9 = Path(__file__).parent / "answers_unseen9.csv"
UNSEEN10 = Path(__file__).parent / "answers_unseen10.csv"
UNSEEN11 = Path(__file__).parent / "answers_unseen11.csv"
UNSEEN12 = Path(__file__).parent / "answers_unseen12.csv"
UNSEEN13 = Path(__file__).parent / "answers_unseen13.csv"
REFUSALS_UNSEEN = Path(__file__).parent / "refusals_unseen.csv"
REFUSALS_UNSEEN2 = Path(__file__).parent / "refusals_unseen2.csv"
REFUSALS = Path(__file__).parent / "refusals.csv"
STATUSES = ("present", "absent", "uncertain")


def _rows(path: Path = ANSWERS) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _label_pairs(row: dict[str, str]) -> set[tuple[str, str]]:
    return {(status, code) for status in STATUSES for code in row[status].split()}


@cache
def _predicted_pairs(answer: str, question: str = "") -> set[tuple[str, str]]:
    result = parse(answer, question)
    return {(status, code) for status in STATUSES for code in getattr(result, status)}


def _figures(rows: list[dict[str, str]]) -> tuple[float, float, float, float]:
    """Precision, recall and F1 over (answer, status, statement), and the share of answers with nothing read."""
    hits = extra = missing = silent = 0
    for row in rows:
        labels, predictions = _label_pairs(row), _predicted_pairs(row["answer"], row.get("question", ""))
        hits += len(labels & predictions)
        extra += len(predictions - labels)
        missing += len(labels - predictions)
        silent += bool(labels) and not predictions
    precision, recall = hits / max(1, hits + extra), hits / max(1, hits + missing)
    return precision, recall, 2 * hits / max(1, 2 * hits + extra + missing), silent / len(rows)


@pytest.mark.parametrize(
    ("path", "count", "wrong", "worst_style"),
    [
        (ANSWERS, 1340, 20, 0.93),
        (CHAT, 355, 20, 0.9),
        (UNSEEN, 199, 21, 0.85),
        (UNSEEN2, 598, 13, 0.92),
        (UNSEEN3, 210, 22, 0.9),
        (UNSEEN4, 60, 10, 0.69),
        (UNSEEN5, 160, 26, 0.7),
        (UNSEEN6, 60, 2, 0.83),
        (UNSEEN7, 160, 5, 0.9),
        (UNSEEN7B, 368, 20, 0.8),
        (UNSEEN8, 80, 8, 0.66),
        (UNSEEN9, 566, 81, 0.7),
        (UNSEEN10, 99, 7, 0.66),
        (UNSEEN11, 107, 18, 0.7),
        (UNSEEN12, 65, 15, 0.66),
        (UNSEEN13, 42, 13, 0.91),
    ],
)
def test_f1_on_written_answers(
    path: Path, count: int, wrong: int, worst_style: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """UNSEEN was difficult on purpose. As first seen, before kinds of wording were mended: docs/log.md.

    wrong: answers that are not read as they are labelled. No more than today: a change that breaks one is noticed.
    """
    rows = [row for row in _rows(path) if row["style"] != "refusal"]
    assert len(rows) >= count
    pairs = [(_label_pairs(row), _predicted_pairs(row["answer"], row.get("question", ""))) for row in rows]
    assert sum(labels != predictions for labels, predictions in pairs) <= wrong
    lines = []
    for style in [*sorted({row["style"] for row in rows}), "all"]:
        of_style = [row for row in rows if style in (row["style"], "all")]
        precision, recall, f1, silent = _figures(of_style)
        figures = f"precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}  unparsed {silent:.3f}"
        lines.append(f"{style:<12} {len(of_style):4d}  {figures}")
        if style == "all":
            assert silent <= 0.03
        else:
            assert f1 >= worst_style, style
    with capsys.disabled():
        print("\n" + "\n".join(lines))


# Digests of what is read of the labelled answers, right or wrong, where it stands included: of the answers, of the same
# as replies to a question of yes or no, and of their halves, as a limit of tokens cuts them off. Figures of reports
# stand on these readings. Who changes one on purpose pins its new digest and says so in the changelog.
READINGS = {
    ANSWERS: "f44801c5704e",
    CHAT: "c4055c41691e",
    UNSEEN: "0ab6f3e1bb26",
    UNSEEN2: "ffc525024090",
    UNSEEN3: "0e4d27e3df20",
    UNSEEN4: "5779e0cd6e08",
    UNSEEN5: "5aa563ec324b",
    UNSEEN6: "19d30acea000",
    UNSEEN7: "b03d24a2538f",
    UNSEEN7B: "b577a0e83b40",
    UNSEEN8: "21b1300b2e18",
    UNSEEN9: "e3ddda82ac22",
    UNSEEN10: "9d5b92b0c917",
    UNSEEN11: "35310e9d547c",
    UNSEEN12: "d3072530ea94",
    UNSEEN13: "062ce7cd7765",
}


@pytest.mark.parametrize("path", READINGS)
def test_readings_stay_what_they_are(path: Path) -> None:
    digest = sha256()
    for row in _rows(path):
        answer, question, words = row["answer"], row.get("question", ""), row["answer"].split()
        halves = [(" ".join(half), question) for half in (words[: len(words) // 2], words[len(words) // 2 :])]
        for text in ((answer, question), (answer, "Does this ECG show atrial fibrillation?"), *halves):
            digest.update(repr(parse(*text).findings).encode())
    assert digest.hexdigest()[:12] == READINGS[path]


@pytest.mark.parametrize("text", ["über", "Ischämie", "möglich"])
def test_an_umlaut_in_two_characters_is_the_same_letter(text: str) -> None:
    assert _fold(normalize("NFD", text))[0] == _fold(text)[0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("ST depression in V5 (ischaemia?). Sinus rhythm.", ("SR STD_", "", "ISC_")),
        ("ST depression, V4-V6 (rate related? ischaemia?)", ("STD_", "", "ISC_")),
        ("LBBB (old?) with AF (new?).", ("AFIB CLBBB", "", "")),
        ("(LVH?)", ("", "", "LVH")),
        ("(Is there LVH?) No.", ("", "LVH", "")),
    ],
)
def test_a_question_mark_in_a_bracket_doubts_what_stands_there(answer: str, expected: tuple[str, str, str]) -> None:
    result = parse(answer)
    assert tuple(" ".join(getattr(result, status)) for status in STATUSES) == expected


def test_an_option_ends_where_the_next_begins() -> None:
    options = options_in("Which is it? A. LBBB B. RBBB C. AF")
    assert [(option.letter, option.text) for option in options] == [("A", "LBBB"), ("B", "RBBB"), ("C", "AF")]


def test_an_answer_may_end_behind_a_comma() -> None:
    assert parse("Premature complexes: 5 ventricular,").present == ("PVC",)


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        (row["answer"], row["refuses"] == "1")
        for path in (REFUSALS, REFUSALS_UNSEEN, REFUSALS_UNSEEN2)
        for row in _rows(path)
    ],
)
def test_refusals_in_any_wording(answer: str, refuses: bool) -> None:
    assert bool(refusal(answer)) == refuses
    if refuses:
        assert parse(answer, "Does this ECG show atrial fibrillation?").findings == ()


def test_every_row_of_the_refusals_is_whole() -> None:
    """A comma in a pattern without quotes cuts it off, which no error tells."""
    with (files("eval.parser") / "refusals.csv").open(encoding="utf-8") as file:
        assert all(None not in row for row in csv.DictReader(line for line in file if not line.startswith("#")))
    assert refusal("The resolution is far too bad to discern a single wave.") == "declined"


def test_chat_refusals_and_readings_are_told_apart() -> None:
    rows = _rows(CHAT)
    assert sum(bool(refusal(row["answer"])) for row in rows if row["style"] == "refusal") >= 44
    assert not any(refusal(row["answer"]) for row in rows if row["style"] != "refusal")


@pytest.mark.parametrize("wording", ["consistent with", "compatible with", "in keeping with", "diagnostic of"])
def test_assertive_wording_is_doubt_for_the_cautious_only(wording: str) -> None:
    answer = f"The ST segments are elevated, {wording} an anterior STEMI."
    assert parse(answer).present == ("AMI", "STE_")
    cautious = parse(answer, cautious=True)
    assert (cautious.present, cautious.uncertain) == (("STE_",), ("AMI",))
    assert parse(f"Possibly {wording} LVH.").uncertain == ("LVH",)
    for question in ("Is there LVH?", "The ECG is ____."):
        assert parse(f"It is {wording} LVH.", question, cautious=True).uncertain == ("LVH",)


@pytest.mark.parametrize(
    "wording", ["cannot exclude", "possible", "may represent", "suggests", "would be compatible with"]
)
def test_doubtful_wording_is_doubt(wording: str) -> None:
    assert parse(f"This {wording} LVH.").uncertain == ("LVH",)


@pytest.mark.parametrize("remark", ["of uncertain origin", "of unclear mechanism", "of unknown age", "cause unclear"])
def test_an_unclear_origin_says_nothing_about_presence(remark: str) -> None:
    assert parse(f"SVT, {remark}.").present == parse(f"SVT {remark}.").present == ("SVTAC",)


def _verdicts(answer: str, question: str = "") -> tuple[str, ...]:
    """The codes that are present, absent and uncertain, each as words."""
    result = parse(answer, question)
    return tuple(" ".join(codes) for codes in (result.present, result.absent, result.uncertain))


@pytest.mark.parametrize(
    ("answer", "present"),
    [
        ("Subendocardial injury laterally and in the high lateral leads.", "INJLA"),
        ("Ischaemia, inferior.", "ISCIN"),
        ("Ischaemia inferiorly (II, III, aVF) and anteriorly (V2-V4).", "ISCAN ISCIN"),
        ("Old infarct: anterior, septal and lateral.", "AMI ASMI LMI"),
        ("Infarction over the anterior and lateral walls.", "AMI LMI"),
        ("Ischaemia in the inferior and lateral leads.", "ISCIL"),
        ("Infarct, inferior and lateral ST elevation.", "STE_"),  # the adjectives belong to the next noun
        ("Inferior infarction and laterally as well.", "IMI LMI"),
    ],
)
def test_territories_behind_their_noun(answer: str, present: str) -> None:
    assert parse(answer).present == tuple(present.split())
    assert set(parse(f"No {answer[0].lower()}{answer[1:]}").present) <= {"STE_"}


@pytest.mark.parametrize(
    ("answer", "question", "present", "absent"),
    [
        ("Is there AF? No. Is there a bundle branch block? Yes, a complete right one.", "", "CRBBB", "AFIB"),
        ("Yes, a complete right one.", "Is there a bundle branch block?", "CRBBB", ""),
        ("Is there an infarct? Yes, inferior.", "", "IMI", ""),
        ("Left bundle branch block? No, a right one.", "", "CRBBB", "CLBBB"),
        ("| Is there AF? | No |\n| Is there LVH? | Yes |", "", "LVH", "AFIB"),
        ("right", "Is there a bundle branch block?", "CRBBB", ""),
        ("a", "Is there a bundle branch block?", "", ""),
    ],
)
def test_replies_that_leave_out_their_noun(answer: str, question: str, present: str, absent: str) -> None:
    result = parse(answer, question)
    assert (result.present, result.absent) == (tuple(present.split()), tuple(absent.split()))


@pytest.mark.parametrize(
    ("answer", "present"),
    [
        ("If this were flutter we would see saw-teeth; it is irregular, fibrillation.", "AFIB"),
        ("If it were LBBB, V1 would be negative, but it is positive, so RBBB.", "CRBBB"),
        ("AF would be irregular; this is regular and therefore flutter.", "AFLT"),
        ("Digitalis effect with sagging ST.", "DIG"),
        ("Ectopic atrial beats (3).", "PAC"),
        ("PVCs (2), PACs (0).", "PVC"),
        ("### T waves\nInverted in II, III and aVF", "INVT"),
        ("Differential: 1. AF 2. flutter 3. MAT. I settle on AF.", "AFIB"),
        ("DDx: (1) sinus tachycardia (2) flutter with 2:1 block. My pick is flutter.", "AFLT"),
        ("Findings: 1) Sinus rhythm 2) LBBB 3) LVH", "CLBBB LVH SR"),
    ],
)
def test_hypotheses_signs_counts_and_headings(answer: str, present: str) -> None:
    assert parse(answer).present == tuple(present.split())


@pytest.mark.parametrize(
    ("answer", "present", "absent", "uncertain"),
    [
        ("Hypokalaemia: U waves, flat T waves. ST depression in V5.", "EL STD_", "", ""),  # another sentence states it
        ("Hypokalaemia with prolonged QT.", "EL LNGQT", "", ""),
        ("LBBB with discordant ST elevation; T waves are inverted.", "CLBBB INVT", "", ""),
        ("Old inferior infarct (Q waves, T inversion).", "IMI INVT QWAVE", "", ""),
        ("ST: elevated in II; depressed in I. T: upright; inverted in III.", "INVT STD_ STE_", "", ""),
        ("Hypertrophy: left ventricular, yes; right ventricular, no.", "LVH", "RVH", ""),
        ("Bundle branch block (incomplete, right); ectopics: many ventricular, few atrial.", "IRBBB PAC PVC", "", ""),
        ("Wenckebach, not Mobitz II.", "2AVB", "", ""),
        ("RBBB or LBBB? V1 is negative, hence not RBBB.", "", "CRBBB", "CLBBB"),
        ("Were this AF, the RR would vary. It does not. Sinus rhythm.", "SR", "AFIB", ""),
        ("Were this AF, the RR would vary. It does not vary much. Sinus rhythm.", "SR", "", ""),
        ("The QT is prolonged. Edit: corrected for the rate it is not.", "", "LNGQT", ""),
        ("There is LBBB. However, it is not new.", "CLBBB", "", ""),
        ("I wrote LBBB above; correction: RBBB.", "CRBBB", "CLBBB", ""),
        ("~~AF~~ Flutter: 60 %, SVT: 30 %. PVCs (10 %).", "PVC", "AFIB", "AFLT SVTAC"),
        ("NSR, QTc 490 (↑), ST↓, -ve T in aVL, ∅ ischemic Δ, ? PE", "INVT LNGQT SR STD_", "ISC_", ""),
        ("WPW, which I consider unlikely because the PR is long.", "LPR", "WPW", ""),
        ("Sinus rhythm, RVH in V1, is unlikely.", "SR", "RVH", ""),
        ("| Lead | Q |\n|---|---|\n| III | yes |\n| V1 | no |", "QWAVE", "", ""),
        ("| Wall | Ischaemia |\n|---|---|\n| Inferior | none |\n| Lateral | present |", "ISCLA", "ISCIN", ""),
        ("| Diagnosis | Probability |\n|---|---|\n| Anterior infarction | 0.7 |", "", "", "AMI"),
        ("Differential of the T inversion: lateral ischaemia, LVH.", "INVT", "", "ISCLA LVH"),
        ("Sinus rhythm; T upright, flat P.", "SR", "", ""),
    ],
)
def test_lists_signs_corrections_and_notes(answer: str, present: str, absent: str, uncertain: str) -> None:
    assert _verdicts(answer) == (present, absent, uncertain)


@pytest.mark.parametrize(
    ("answer", "question", "present", "absent", "uncertain"),
    [
        ("Ischemic changes are seen in the lateral wall.", "", "ISCLA", "", ""),
        ("The infarct is inferior.", "", "IMI", "", ""),
        ("Ischemia in the anterior and, to a lesser extent, inferior leads.", "", "ISCAN ISCIN", "", ""),
        ("The tall R wave has three possible explanations: RVH, RBBB and WPW.", "", "", "", "CRBBB RVH WPW"),
        ("The ST elevation could be due to:\n- anterior infarction\n- LV aneurysm", "", "STE_", "", "AMI ANEUR"),
        ("## Atrial flutter\nNot seen\n## Rhythm\nSinus", "", "SR", "AFLT", ""),
        ("The computer calls it atrial flutter. I disagree: sinus rhythm.", "", "SR", "AFLT", ""),
        ("Checking for LVH: voltages are small. Sinus rhythm.", "", "SR", "", ""),
        ("RBBB? No. Left? Absolutely.", "", "CLBBB", "CRBBB", ""),
        ("I would think so.", "Is this LBBB?", "CLBBB", "", ""),
        ("The latter.", "Is it atrial flutter or atrial fibrillation?", "AFIB", "", ""),
    ],
)
def test_wordings_of_other_systems(answer: str, question: str, present: str, absent: str, uncertain: str) -> None:
    assert _verdicts(answer, question) == (present, absent, uncertain)


@pytest.mark.parametrize(
    ("answer", "present", "absent", "uncertain"),
    [
        ("| Sign | Present | Absent |\n|---|---|---|\n| LVH | x | |\n| RVH | | x |", "LVH", "RVH", ""),
        ("| Lead | ST | T |\n|---|---|---|\n| V5 | elevated | inverted |", "INVT STE_", "", ""),
        ("| AF | LBBB |\n|---|---|\n| no | yes |", "CLBBB", "AFIB", ""),
        ("| Rhythm | sinus | – |\n| QRS | RBBB | – |", "CRBBB SR", "", ""),
        ("| AV block | Present |\n|---|---|\n| First degree | No |", "", "1AVB", ""),
        ("**T waves**\n- Inverted: V4\n- Flat: none", "INVT", "NT_", ""),
        ("## Absent\n- LVH\n## Present\n- AF", "AFIB", "LVH", ""),
        ("## Ventricles\nNormal\n## Rhythm\nAF", "AFIB", "", ""),
        ("LVH, RVH or WPW? Delta waves: WPW.", "WPW", "LVH RVH", ""),
        ("This could be a PAC, but no P wave precedes it, so it is a PVC.", "PVC", "PAC", ""),
        ("LVH was considered but dismissed.", "", "LVH", ""),
        ("AF would be irregular, so that is excluded.", "", "AFIB", ""),
        ("AF was my first thought, but it is atrial flutter.", "AFLT", "AFIB", ""),
        ("Inferiorly there is an infarct.", "IMI", "", ""),
        ("The infarct is lateral rather than inferior.", "LMI", "IMI", ""),
        ("Electrolytes, mainly potassium, might be the cause.", "", "", "EL"),
        ("Causes of left axis deviation: LAFB, inferior MI.", "", "", "IMI LAFB"),
        ("It is either AF or sinus rhythm with PACs.", "", "", "AFIB PAC SR"),
        ("Possible... no, definite LBBB.", "CLBBB", "", ""),
        ("Pathologische Q-Zacken, kompletten Rechtsschenkelblock.", "CRBBB QWAVE", "", ""),
        ("L'intervalle QT est allongé, pas d'ischémie.", "LNGQT", "ISC_", ""),
        ("Bloqueo AV completo; no se puede descartar isquemia.", "3AVB", "", "ISC_"),
        ("QS in V1 belongs to the LBBB.", "CLBBB", "", ""),
        ("The patient needs a pacemaker.", "", "", ""),
        ("## Ischemia\n**T waves:** inverted in V2\n## Rhythm\nsinus", "INVT SR", "", ""),
        ("**Ischemia:** No ST elevation.", "", "STE_", ""),
        ("Occasional premature beats; they are PVCs.", "PVC", "", ""),
        ("The fascicle doesn't conduct: LAFB.", "LAFB", "", ""),
        ("I looked for AF because of the irregular pulse on my exam, and I can't find it.", "", "AFIB", ""),
        ("ST depression V5.\n\n## Possible causes of the ST depression\n- LVH\n- ischemia", "STD_", "", "ISC_ LVH"),
        (
            "Possibilities for the slow rate are sinus bradycardia, 2:1 AV block and complete heart block.",
            "",
            "",
            "2AVB 3AVB SBRAD",
        ),
        (
            "| Part | Value | Verdict |\n|---|---|---|\n| PR | 168 ms | normal |\n| Rhythm | sinus | ok |",
            "SR",
            "LPR",
            "",
        ),
        (
            "| Diagnosis | For | Verdict |\n|---|---|---|\n| AF | no P | very likely |\n| RVH | tall R | excluded |",
            "",
            "RVH",
            "AFIB",
        ),
        ("| Part | Normal | Abnormal |\n|---|---|---|\n| PR interval | ✔ | |\n| Rhythm | sinus | |", "SR", "LPR", ""),
        ("RVH: the axis is normal, so no.", "", "RVH", ""),
        (
            "Initially I suspected an anterior MI because of the ST elevation in V2. But it is early repolarization.",
            "STE_",
            "AMI",
            "",
        ),
        ("I considered RVH; the axis is normal, so that doesn't fit.", "", "RVH", ""),
        ("It could be LBBB or WPW. There is no delta wave. That leaves LBBB.", "CLBBB", "WPW", ""),
        ("Possible lateral ischemia (T wave inversion in V5).", "INVT", "", "ISCLA"),
        ("Possible atrial arrhythmia (AF).", "", "", "AFIB SVARR"),
        ("This may or may not be LVH.", "", "", "LVH"),
        ("Multifocal atrial tachycardia – not supported: would need three P waves.", "", "SVARR", ""),
        ("### Leads II, III, aVF\nUnremarkable\n### Rhythm\nAF", "AFIB", "", ""),
        ("### Normal\n- QRS duration\n### Abnormal\n- LVH", "LVH", "", ""),
        ("Q: Is there a bundle branch block?\nA: Yes, left.", "CLBBB", "", ""),
        ("Eine Hypokaliämie sollte ausgeschlossen werden.", "", "", "EL"),
        ("|\nLVH\n| a | b |\n|", "LVH", "", ""),
        ("QRS 86 ms – normal. QT/QTc: 392/405 ms – normal.", "", "LNGQT", ""),
    ],
)
def test_tables_choices_and_languages(answer: str, present: str, absent: str, uncertain: str) -> None:
    assert _verdicts(answer) == (present, absent, uncertain)


@pytest.mark.parametrize(
    ("answer", "present", "absent", "uncertain"),
    [
        ('{"rhythm": "AF", "axis": "normal", "normal": false, "findings": ["LVH"]}', "AFIB LVH", "NORM", ""),
        ('[{"finding": "LVH", "present": true}, {"finding": "RVH", "present": false}]', "LVH", "RVH", ""),
        ('{"name": "AF", "probability": 0.72}', "", "", "AFIB"),
        ("Rhythm: [x] sinus [ ] AF\nInfarct: ■ inferior □ lateral\nLVH: □ yes ■ no", "IMI SR", "AFIB LMI LVH", ""),
        ("LVH ........ Y\nRVH ........ N\nPVCs (n = 3)", "LVH PVC", "RVH", ""),
        ("LVH yes, RVH no", "LVH", "RVH", ""),
        ("| Wall | Infarction |\n|---|---|\n| inferior | yes |\n| lateral | no |", "IMI", "LMI", ""),
        ("| Atria | fibrillating |", "AFIB", "", ""),
        ("An old inferior infarct at about 60 %.", "", "", "IMI"),
        ("At first I took it for AF. There are P waves: sinus rhythm.", "SR", "AFIB", ""),
        ("I first wrote PVC. The beat is narrow: a PAC.", "PAC", "PVC", ""),
        ("LBBB [edit: I mixed up V1 and V6; this should read RBBB].", "CRBBB", "CLBBB", ""),
        ("It's AF. I take that back: atrial flutter.", "AFLT", "AFIB", ""),
        ("The computer says PVC. Later PACs, LBBB and AF.", "AFIB CLBBB PAC", "PVC", ""),
        ("Inferior STEMI: keep pads on in case of complete heart block.", "IMI", "", ""),
        ("Flutter would be expected nearer 150 but isn't out of the question.", "", "", "AFLT"),
        ("T inversion. There are several ways to read this:\n- ischemia\n- RVH", "INVT", "", "ISC_ RVH"),
        ("Long QT.\n\nWhat could cause this?\n- hypokalemia", "LNGQT", "", "EL"),
        ("ST elevation with QS waves raises two possibilities: an anterior infarct, or an aneurysm.", "QWAVE STE_", "",
         "AMI ANEUR"),
        ("Neither a left nor a right bundle branch block.", "", "CLBBB CRBBB", ""),
        ("Neither flutter nor fibrillation but sinus rhythm.", "SR", "AFIB AFLT", ""),
        ("The infarct is lateral and not inferior.", "LMI", "IMI", ""),
        ("Voltages fall short of LVH.", "", "LVH", ""),
        ("Premature beats: ventricular (4), atrial (1). Chamber enlargement: left atrial.", "LAO/LAE PAC PVC", "", ""),
        ("**Ischemia/Infarction:** No ST elevation.", "", "STE_", ""),
        ("LVH. The QRS is otherwise unremarkable. No LVH, in fact, and sinus rhythm; QTc wnl.", "SR", "LNGQT", "LVH"),
        ("Sinus tach, rate 120.", "STACH", "", ""),
        ("Since the last tracing: T waves have become inverted.", "INVT", "", ""),
        ("Schenkelblock: weder links noch rechts. ST-Hebungen bestehen nicht.", "", "CLBBB CRBBB STE_", ""),
        ("Fibrillazione atriale, non sopraslivellamento del tratto ST, infarto inferiore.", "AFIB IMI", "STE_", ""),
        ("ST elevation: +\nST depression: -\nLVH: -\nPR ✔ normal", "STE_", "LPR LVH STD_", ""),
        ("Earlier I mentioned a paced rhythm. That's incorrect: artifact. The rhythm is sinus.", "SR", "PACE", ""),
        ("I went back and forth between flutter and fibrillation; it is flutter.", "AFLT", "AFIB", ""),
        ("Neither an inferior, nor an anterior, nor a lateral infarct.", "", "AMI IMI LMI", ""),
        ('{"ST_elevation": ["II"], "ST_depression": []}', "STE_", "STD_", ""),
        ("ST elevation: none ✅", "", "STE_", ""),
        ("Not normal: SVT. AVNRT is the most common explanation.", "SVTAC", "NORM", "PSVT"),
        ("Consider checking electrolytes. Correct hypokalemia if present.", "", "", ""),
        ("Pericarditis versus anterior MI. Anterior ischemia until ruled out.", "", "", "AMI ISCAN"),
        ("Keine frischen Hebungen.", "", "STE_", ""),
        ("Is it AF? There are P waves: sinus rhythm. Is there LVH? Is there LBBB?", "SR", "AFIB", ""),
        ("**Q waves:** none pathological\n**Rhythm:** sinus", "SR", "QWAVE", ""),
        ("I did ask myself if this could be flutter, but the P waves are single.", "", "AFLT", ""),
        ("We look at the ST segments. In leads II and III, they are elevated.", "STE_", "", ""),
        ('{"present": ["AFIB"], "not_present": ["AFLT"], "x": [{"name": "LVH", "certainty": "possible"}]}', "AFIB",
         "AFLT", "LVH"),
        ("( ) sinus\n(x) atrial fibrillation", "AFIB", "SR", ""),
        ("Ddx of this SVT includes AVNRT. STACH can be dismissed.", "SVTAC", "STACH", "PSVT"),
        ('Your device said "possible AF". I see sinus rhythm.', "SR", "AFIB", ""),
        ("Ischemia is still on the table. Too noisy to be sure of AF.", "", "", "AFIB ISC_"),
        ("Do not try to diagnose LVH from this tracing.", "", "", ""),
        ("La isquemia es poco probable.", "", "ISC_", ""),
        ('{"lvh": {"present": false}, "st_elevation": {"present": true, "leads": ["V1"]}}', "STE_", "LVH", ""),
        ("• Sinus? ✔️ yes\n• AF/flutter? ❌ no", "SR", "AFIB AFLT", ""),
        ("Why LBBB? V6 is notched. Why not RBBB? V1 is negative.", "CLBBB", "CRBBB", ""),
        ("I checked for pacing spikes and there aren't any.", "", "PACE", ""),
        ("More in keeping with strain than with lateral ischemia. Makes me wonder about AF.", "", "", "AFIB ISCLA"),
        ("What I described as SVT is in fact atrial fibrillation.", "AFIB", "SVTAC", ""),
        ("In LBBB we'd use other criteria. Call cardiology for a pacemaker.", "", "", ""),
        ("AF with aberrancy or PVCs. Not a normal study.", "AFIB", "NORM", "PVC"),
        ("I can neither confirm nor exclude ischemia.", "", "", "ISC_"),
        ("**Step 1: ST segments.** No elevation.", "", "STE_", ""),
        ("Initial read: SVT. Final read: atrial flutter.", "AFLT", "SVTAC", ""),
        ("I said LVH. I was wrong. AF... actually no. Sinus rhythm.", "SR", "AFIB LVH", ""),
        ("SVT? Possible, but adenosine unmasked flutter waves. Hence atrial flutter.", "AFLT", "SVTAC", ""),
        ("Left axis deviation: LAFB > inferior MI > LVH.", "", "", "IMI LAFB LVH"),
        ("Rule out hypokalemia, hypocalcemia and drugs.", "", "", "EL"),
        ("Hypokalemia would be one explanation, ischemia another.", "", "", "EL ISC_"),
        ("AF. Previously in SR. It can lead to complete heart block.", "AFIB", "", ""),
        ('"Is it LBBB?" No, since V1 is positive. "RBBB then?" Exactly.', "CRBBB", "CLBBB", ""),
        ("PVC? N. PAC? Y.", "PAC", "PVC", ""),
        ("No es fibrilación auricular sino flutter auricular.", "AFLT", "AFIB", ""),
        ("Ondes Q absentes, pas de sus-décalage. Dilatazione dell'atrio sinistro.", "LAO/LAE", "QWAVE STE_", ""),
    ],
)  # fmt: skip
def test_objects_boxes_and_what_is_replaced(answer: str, present: str, absent: str, uncertain: str) -> None:
    assert _verdicts(answer) == (present, absent, uncertain)


@pytest.mark.parametrize(
    ("answer", "question", "verdicts"),
    [
        ("Right, but incomplete: 108 ms.", "Right or left bundle branch block?", ("IRBBB", "", "")),
        ("Not with confidence.", "Can you confirm an old inferior infarct?", ("", "", "IMI")),
        ("Borderline, just under the cut-off.", "Does this patient have LVH?", ("", "", "LVH")),
        ("Oui.", "Le rythme est-il sinusal ?", ("SR", "", "")),
        ("negative", "T wave inversion present?", ("", "INVT", "")),
        ("They're inverted in V1 to V3.", "Describe the T waves.", ("INVT", "", "")),
        ("Normal.", "Describe the P waves, the QRS complexes and the T waves.", ("NORM", "", "")),
        ("Normal (156 ms).", "Comment on the PR interval.", ("", "LPR", "")),
        ("160 ms. Sinus rhythm.", "What is the PR interval?", ("SR", "", "")),
        ("The rate is 71, so no, not bradycardic.", "Is there sinus bradycardia?", ("", "SBRAD", "")),
        ("Leads II, III and aVF.", "Which leads show Q waves?", ("QWAVE", "", "")),
        ("No, it is prolonged at 490 ms.", "Is the QTc normal?", ("LNGQT", "", "")),
        ("At 440 ms (QTc 432), it's not.", "Is the QT prolonged?", ("", "LNGQT", "")),
        ("Considerably: QTc is 530 ms.", "Is the QT prolonged?", ("LNGQT", "", "")),
        ("I looked for it, and found none.", "Any sign of pre-excitation?", ("", "WPW", "")),
        ("Here is a detailed analysis:\n- LVH\nI cannot provide medical advice.", "", ("LVH", "", "")),
    ],
)
def test_replies_and_what_looks_like_a_refusal(answer: str, question: str, verdicts: tuple[str, ...]) -> None:
    assert _verdicts(answer, question) == verdicts


def test_cells_keep_their_places() -> None:
    answer = "| Lead | ST |\n|---|---|\n| V5 | elevated |"
    assert [answer[slice(*f.span)] for f in parse(answer).findings] == ["elevated"]


def test_what_an_answer_considered_first_gives_way_to_what_it_concludes() -> None:
    assert parse("At first glance this looks like AF. However, P waves are visible: sinus rhythm.").absent == ("AFIB",)
    assert parse("Maybe AF? P waves are visible, so not AF.").absent == ("AFIB",)
    assert parse("**Differential diagnosis**\n* AVNRT\n* Atrial flutter").uncertain == ("AFLT", "PSVT")


def test_the_measure_can_fail() -> None:
    rows = [{"answer": "No LVH.", "present": "LVH", "absent": "", "uncertain": ""}]
    assert _figures(rows)[2] == 0.0


def test_the_answers_name_known_statements_and_cover_most() -> None:
    codes = {code for row in _rows() for _, code in _label_pairs(row)}
    assert codes <= set(STATEMENTS)
    assert not set(STATEMENTS) - codes


@pytest.mark.parametrize("code", STATEMENTS)
def test_every_statement_is_read_by_its_code_and_its_name(code: str) -> None:
    name = STATEMENTS[code].name
    assert code in parse(f"{code}, SR").present
    assert parse(f"The ECG shows {name}.").present == (code,)
    assert code in parse(f"There is no {name.removeprefix('an ').removeprefix('a ')}.").absent
    assert code in parse(f"Possible {name.removeprefix('an ').removeprefix('a ')}.").uncertain


def test_spans_point_at_the_words_that_say_so() -> None:
    answer = "Größe egal: kein Vorhofflimmern, but LEFT-BUNDLE branch  block."
    words = {f.code: answer[slice(*f.span)] for f in parse(answer).findings}
    assert words == {"AFIB": "Vorhofflimmern", "CLBBB": "LEFT-BUNDLE branch  block"}
    assert parse("No AFIB").findings == (Finding("AFIB", "absent", (3, 7)),)


@pytest.mark.parametrize("answer", ["ABNORMAL ECG", "abnormal", "This is an abnormal tracing."])
def test_normal_inside_abnormal_is_not_normal(answer: str) -> None:
    assert parse(answer).present == ()


def test_af_inside_lafb_is_not_atrial_fibrillation() -> None:
    assert parse("LAFB").present == ("LAFB",)
    assert parse("SUPRAVENTRICULAR TACHYCARDIA").present == ("SVTAC",)
    assert parse("incomplete right bundle branch block").present == ("IRBBB",)


def test_general_terms_set_no_statement() -> None:
    for term in (
        "myocardial infarction",
        "AV block",
        "bundle branch block",
        "hypertrophy",
        "arrhythmia",
        "tachycardia",
    ):
        assert parse(f"There is {term}.").findings == ()


@pytest.mark.parametrize(
    "answer",
    [
        "<think>LVH? No: AF.</think>\n\nAtrial flutter.",
        "LVH? No: AF.</think> Atrial flutter.",  # the chat template wrote the opening mark
        "<THINKING>\nLVH\n</THINKING>Atrial flutter.",
        "[THINK]Normal ECG[/THINK]Atrial flutter.",
        "◁think▷LVH◁/think▷Atrial flutter.",
        "<|channel|>analysis<|message|>LVH<|end|><|start|>assistant<|channel|>final<|message|>Atrial flutter.",
        "<think>LVH</think><think>AF</think>Atrial flutter.",
        "<think>LVH</think> Is it AF? <answer>Atrial flutter.</answer> AF was considered.",
        "There is LVH. <answer>Atrial flutter.",
        "<answer>LVH</answer> No: <answer>Atrial flutter.</answer>",
        f"<think>{'AF, LVH. ' * 100_000}</think>Atrial flutter.",
    ],
)
def test_thoughts_are_no_part_of_an_answer(answer: str) -> None:
    result = parse(answer)
    assert (result.present, result.absent, result.uncertain) == (("AFLT",), (), ())
    assert [answer[slice(*finding.span)] for finding in result.findings] == ["Atrial flutter"]
    assert parse(f"<think>AF</think> {'No. ' * 9000} AF.").present == ()  # the limit counts from the answer on


@pytest.mark.parametrize("answer", ["<think>It is AF, since", " [THINK] AF", "<|channel|>analysis<|message|>AF"])
def test_of_thoughts_alone_nothing_is_read(answer: str) -> None:
    assert parse(answer, "Is it AF?").findings == ()
    assert parse(f"LVH. {answer}").present == ("AFIB", "LVH")  # behind an answer they are none


def test_a_refusal_behind_thoughts_is_one_and_within_them_is_none() -> None:
    assert refusal("<think>There may be AF.</think>I can't interpret medical images.") == "declined"
    assert refusal("<think>I can't interpret medical images, can I?</think>Atrial fibrillation.") == ""


@pytest.mark.parametrize(
    ("value", "verdict"),
    [("0.98", "present"), ("0.91", "present"), ("0.9", "uncertain"), ("0.1", "uncertain"), ("0.09", "absent"),
     ("91 %", "present"), ("90%", "uncertain"), ("10 %", "uncertain"), ("9 %", "absent")],
)  # fmt: skip
def test_a_probability_asserts_doubts_or_denies(value: str, verdict: str) -> None:
    assert getattr(parse(f'{{"AFIB": {value}, "SR": 0.5}}'), verdict) in (("AFIB",), ("AFIB", "SR"))
    assert parse(f"PR: {value}").uncertain == ()  # seconds, as a rule


def test_advice_states_nothing() -> None:
    advice = (
        "Next steps: check electrolytes and consider pacing.\n**Recommendations:**\n- Holter to look for AF\n- LVH?\n"
    )
    result = parse(f"RBBB.\n{advice}Conclusion: sinus rhythm.")
    assert (result.present, result.absent, result.uncertain) == (("CRBBB", "SR"), (), ())
    assert parse("Plan: see a doctor. Exclude LVH.\n- Rest. Avoid AF.\n- LVH?").findings == ()
    assert parse("Assessment and plan: AF.\nStep 2: LVH\nFurther findings: PVCs").present == ("AFIB", "LVH", "PVC")


@pytest.mark.parametrize("where", ["in the presence of", "in the setting of", "in the context of", "in the face of"])
def test_a_circumstance_is_not_denied(where: str) -> None:
    result = parse(f"No ST elevation {where} LBBB.")
    assert (result.present, result.absent) == (("CLBBB",), ("STE_",))


def test_a_condition_states_nothing() -> None:
    assert parse("If AF is present, anticoagulate. If RBBB is new, think of PE.").findings == ()
    assert parse("ST segments cannot be assessed in paced rhythm.").present == ("PACE",)
    assert parse("T waves WNL.").findings == ()


def test_what_stands_before_an_expectation_counts() -> None:
    assert parse("LVH is present, although one would expect taller R waves.").present == ("LVH",)
    assert parse("If it were AF, one would expect an irregular rhythm.").findings == ()


def test_a_normal_ecg_to_compare_with_is_not_this_one() -> None:
    assert parse("This differs from a normal ECG in two ways.").findings == ()
    assert parse("This is a normal ECG.").present == ("NORM",)


def test_mentions_that_disagree() -> None:
    assert parse("LVH. Later: no LVH.").uncertain == ("LVH",)
    assert parse("ST elevation in II, no ST elevation in V1.").present == ("STE_",)
    assert parse("Possible LVH. LVH with strain.").present == ("LVH",)
    assert parse("Possible LVH. No LVH.").uncertain == ("LVH",)


@pytest.mark.parametrize(
    "answer", ["", " \n\t", "?", "...", "(((", "no " * 500, "\u0000\ud800 ß", "- \n- \n", "🫀", ":" * 99]
)
def test_odd_input_is_no_error(answer: str) -> None:
    assert parse(answer).findings == ()
    parse_yes_no(answer)


def test_a_long_answer_takes_a_moment() -> None:
    import time

    start = time.process_time()
    parse("Sinus rhythm, no ST elevation or Q waves in II, III and aVF; possible LVH. " * 200)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Yes", True),
        ("yes.", True),
        ("**Yes**, there is.", True),
        ("No", False),
        ("No, the rhythm is sinus.", False),
        ("Nein.", False),
        ("Ja, Vorhofflimmern.", True),
        ("The answer is yes.", True),
        ("Answer: No", False),
        ("Atrial fibrillation is present.", True),
        ("The ECG does not show atrial fibrillation.", False),
        ("There is no evidence of LVH.", False),
        ("Is there LVH? Yes.", True),
        ("It is not present.", False),
        ("Yes, no P waves are visible.", True),
        ("No doubt about it, LVH.", True),
        ("Yes. A right bundle branch block is possible, too.", True),
        ("The answer is no.", False),
        ("False", False),
        ("Yes and no.", None),
        ("I am not sure.", None),
        ("It may be present.", None),
        ("Possibly.", None),
        ("Yes, possibly.", None),
        ("I cannot tell from the image.", None),
        ("", None),
        ("The image shows a chart.", None),
    ],
)
def test_yes_no(answer: str, verdict: bool | None) -> None:
    assert parse_yes_no(answer) is verdict


def test_patterns_expand() -> None:
    assert expand("[old] inferior/diaphragmatic mi") == [
        ("diaphragmatic", "mi"),
        ("inferior", "mi"),
        ("old", "diaphragmatic", "mi"),
        ("old", "inferior", "mi"),
    ]


def test_no_general_phrase_carries_a_code() -> None:
    book = lexicon().meanings
    for phrase in ("av block", "bundle branch block", "mi", "hypertrophy", "abnormal ecg", "arrhythmia"):
        assert book[tuple(phrase.split())].codes == (), phrase


QUESTION = "Which of these is the rhythm?\nA. Sinus rhythm\nB. Atrial fibrillation\nC. Atrial flutter\nD. Bigeminy"


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("B", "B"),
        ("b)", "B"),
        ("**B**. Atrial fibrillation", "B"),
        ("The correct answer is (C).", "C"),
        ("A and D", "AD"),
        ("Both B and C.", "BC"),
        ("Option C: atrial flutter", "C"),
        ("All of the above", "ABCD"),
        ("None of the above.", ""),
        ("A normal ECG", ""),
        ("The answer is a normal ECG.", ""),
        ("I am unable to choose.", ""),
    ],
)
def test_letters_are_read_only_where_an_answer_stands(answer: str, letters: str) -> None:
    assert "".join(p.letter for p in letter_picks(answer, options_in(QUESTION)) if p.correct) == letters


def test_the_span_of_a_reply_lies_in_the_answer() -> None:
    assert parse("No.", "Is there atrial fibrillation?").findings == (Finding("AFIB", "absent", (0, 2)),)
    assert parse("It is B.", QUESTION).present == ()  # running text picks nothing
    (finding,) = parse("Answer: B", QUESTION).findings
    assert (finding.code, "Answer: B"[slice(*finding.span)]) == ("AFIB", "Answer: B")
    (finding,) = parse("sinus", "The rhythm is ____.").findings
    assert (finding.code, "sinus"[slice(*finding.span)]) == ("SR", "sinus")


def test_a_question_alone_says_nothing() -> None:
    assert parse("", "Is there atrial fibrillation?").findings == ()
    assert parse("Yes.", "Is the heart rate above 100 per minute?").findings == ()
    assert parse("C. 160 ms.", "What is the PR interval?\nA. 120 ms\nB. 200 ms\nC. 160 ms").findings == ()


_PIECES = st.sampled_from(
    [
        "no",
        "not",
        "possible",
        "AF",
        "LVH",
        "ST",
        "elevation",
        "or",
        "and",
        ",",
        ".",
        ":",
        ";",
        "(",
        ")",
        "?",
        "-",
        "*",
        "**",
        "A.",
        "B)",
        "yes",
        "\n",
        "\t",
        "V1-V3",
        "is",
        "are",
        "kein",
        "ohne",
        "[x]",
        "✓",
        "+",
        "____",
        "1.",
        "|",
        "like",
        "answer",
        "none",
        "of",
        "the",
        "above",
        "T",
        "waves",
        "inverted",
        "Q:",
        "that",
        "which",
        "but",
        "with",
        "2:1",
        "one",
        "yes,",
        "inferior",
        "laterally",
        "if",
        "would",
        "consistent with",
        "cannot read",
        "{",
        "}",
        "[",
        "]",
        '"present"',
        "probability",
        "0.7",
        "☐",
        "■",
        "why",
        "I was wrong",
        "correction",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(_PIECES, max_size=30).map(" ".join) | st.text(max_size=120), st.lists(_PIECES, max_size=20).map(" ".join)
)
def test_any_text_is_read_without_error_and_the_same_twice(answer: str, question: str) -> None:
    result = parse(answer, question)
    assert result == parse(answer, question)
    assert not set(result.present) & set(result.absent) | set(result.present) & set(result.uncertain)
    assert all(0 <= f.span[0] <= f.span[1] <= len(answer) for f in result.findings)
    parse_yes_no(answer)


_DECORATIONS = {
    "bold": lambda text: f"**{text}**",
    "space": lambda text: f"  {text.replace(' ', '  ')} \n",
    "bullet": lambda text: f"- {text}",
    "number": lambda text: f"1. {text}",
    "heading": lambda text: f"## {text}",
    "quote": lambda text: f"> {text}",
    "capital": str.capitalize,
}


@pytest.mark.parametrize("decoration", _DECORATIONS)
def test_decoration_changes_nothing(decoration: str) -> None:
    """Markdown, spaces and a capital first letter do not change what is read from short answers."""
    rows = [r for r in _rows() if r["style"] in ("negated", "hedged", "british") and "\n" not in r["answer"]]
    decorate = _DECORATIONS[decoration]
    answers = [r["answer"] for r in rows]
    different = [answer for answer in answers if _predicted_pairs(decorate(answer)) != _predicted_pairs(answer)]
    assert len(different) <= 0.02 * len(rows), different


@pytest.mark.parametrize("code", STATEMENTS)
def test_a_yes_or_no_is_read_after_every_wording_of_its_question(code: str) -> None:
    wordings = [(form, name) for name in ("", *OTHER_NAMES.get(code, ())) for form in closed_forms(code, name)]
    assert len(wordings) > 3
    for question in {closed_question(code, form, name) for form, name in wordings}:
        assert code in parse("Yes.", question).present, question
        assert code in parse("No.", question).absent, question


def test_a_bare_name_asks_and_two_do_not() -> None:
    assert parse("Yes.", "AF?").present == ("AFIB",) and parse("No.", "Any rhythm but AF? LVH?").absent == ("LVH",)
    assert parse("Yes.", "Wenckebach or Mobitz block?").present == ("2AVB",)
    assert parse("Yes.", "Sinus rhythm or AF?").findings == ()
