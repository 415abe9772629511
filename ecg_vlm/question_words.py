"""The words of questions about an ECG in English, German, Spanish and French, as `eval.parser.tokenizer` writes them.

A question is understood only where every one of its words is here or names a statement: "Is AF dangerous?" contains a
statement and asks something else.
"""

from __future__ import annotations

from eval.parser.tokenizer import word_tuple


def _words(text: str) -> frozenset[str]:
    return frozenset(part for word in text.split() for part in word_tuple(word))


GERMAN = _words(
    "ist sind das dies dieses diesem diese dieser ein eine einen eines kein keine keinen nicht liegt vor hat haben der "
    "die den dem er sie es man sehen siehst sieht zeigt zeigen auf im zu zum fuer von gibt bitte hier oder und was "
    "welche welcher welches welchen wie lautet lauten art bei patienten patientin zeichen anhalt hinweise finden mit "
    "koennen kannst sieht nach aus mein meine meinem nennen nenne sagen sage sich du ihr dein deine alles mir"
)
SPANISH = _words(
    "hay tiene es esta este un una el los las se ve ves en del paciente signos muestra presenta por favor trazado "
    "y cual cuales como dime dame mi que puede puedes son lo"
)
FRENCH = _words(
    "y a t il est ce un une des le la les de du cet cette patient trace montre presente signe signes voyez vous on sur "
    "dans avez cest mon quel quelle quels quelles qu que quoi sont elle tu vois"
)
NEGATIONS = _words("not no kein keine keinen nicht pas")
CLOSED = (
    GERMAN
    | SPANISH
    | FRENCH
    | NEGATIONS
    | _words(
        "does do did this that the these those a an ecg electrocardiograma electrocardiogramme trace tracing recording "
        "electrocardiogram strip page picture image lead show showing have has had having is are was were be been "
        "there here any some it he she they patient person i we you see can could may might would will find in on of "
        "my me your his her please pls sign signs evidence suggestion suspicion feature criteria possible possibly "
        "probable probably likely really definitely clearly with at all present visible seen detected suffer suffering "
        "from say think call look like as to or and hello hi hey thanks just also still so by for recognize reveal "
        "indicate exist tell whether if know quest observe pattern finding change current currently 12 twelve am hint"
    )
)
"""Words of yes/no questions."""

OPEN = CLOSED | _words(
    "what whats which how tell describe name identify give list kind type main underlying most determine state short "
    "brief explain notice shown full erstellen erstelle about us overall complete clinical english deutsch me heart "
    "herz cardiaque cardiaco coeur corazon need too auf faellt auffaellt write do something let know"
)
"""Words of all questions."""

ASKING = _words(
    "what whats which was welche welcher welches welchen que quest qu quoi how why when who wie describe list give "
    "explain tell"
)
WHAT_ABROAD = _words("que qu")
"""They ask for a thing at the start of a sentence only: "Est-ce que ..." asks for yes or no."""
SHOWING = _words(
    "show see seen montre muestra zeigt zeigen sehen siehst sieht ves ve voyez vois have has think say visible "
    "anything shown notice tell faellt auffaellt explain"
)

RHYTHM = _words("rhythm rhythmus ritmo rythme herzrhythmus arrhythmia arrhythmie arritmia arythmie")
RHYTHM_STATES = _words("normal regular irregular regelmaessig unregelmaessig regulier")
FINDINGS = _words(
    "anything finding findings diagnosis diagnoses dx abnormality abnormalities pathology wrong diagnose "
    "diagnosen diagnostico diagnostic hallazgo hallazgos befunde auffaelligkeiten anomalie anomalies morphology "
    "impression"
)
REPORT = _words(
    "report interpret interpretation interprete interpretes analyse analyze analysis read reading assess assessment "
    "summarise summarize summary evaluate evaluation conclusion interpreta interpretar interpretacion interpreter "
    "interpretez informe rapport analice analiza analysez"
)
GERMAN_REPORT = _words(
    "befund befunden befunde befundung bericht beurteilen beurteile beurteilung befundbericht "
    "schreibe schreiben schreib interpretieren interpretiere"
)
NORMAL = _words(
    "normal normale normales normaler unremarkable healthy ok okay fine unauffaellig ordnung gesund limit within"
)
ABNORMAL = _words("abnormal abnormality wrong pathological auffaellig pathologisch unusual anormal")
SUBJECT_WORDS = _words("everything anything something alles thing nothing todo tout estan")
"""What a question about normality may be about."""

INFARCTIONS = _words(
    "infarct infarction mi infarkt herzinfarkt myokardinfarkt infarto infarctus attack myocardial heart old previous "
    "alter alten miocardio myocarde"
)
"""Words of a general question about infarction, of which one of `INFARCTION_NOUNS` must be there."""
INFARCTION_NOUNS = _words("infarct infarction mi infarkt herzinfarkt myokardinfarkt infarto infarctus attack")
BLOCKS = _words("block blockade schenkelblock bloc bloqueo av heart bundle branch branche rama conduction")
BLOCK_NOUNS = _words("block schenkelblock bloc bloqueo")
BUNDLES = _words("bundle branch branche rama schenkelblock")
HYPERTROPHIES = _words("hypertrophy hypertrophie hipertrofia")
EXTRASYSTOLES = _words("extrasystole extrasystolen extrasistole extrasistoles ectopic premature beat ectopics extra")
EXTRASYSTOLE_NOUNS = _words("extrasystole extrasystolen extrasistole extrasistoles ectopic premature ectopics")

RATE = _words("rate heartrate fc hr bpm pulse puls herzfrequenz frequenz frecuencia frequence fast beat schnell")
FAST = _words("tachycardia tachycardic tachykardie tachykard taquicardia tachycardie")
SLOW = _words("bradycardia bradycardic bradykardie bradykard bradicardia bradycardie")
PR = _words("pr pq pq-zeit")
QRS = _words("qrs")
QT = _words("qt")
QTC = _words("qtc corrected bazett fridericia")
AXIS = _words("axis achse lagetyp eje axe lad rad herzachse")
AXIS_SIDES = {
    "normal": _words("normal"),
    "left": _words("left lad"),
    "right": _words("right rad"),
    "extreme": _words("extreme"),
}
ABOVE = _words("above over faster longer greater more")
BELOW = _words("below under slower less")
WIDE = _words("wide broad breit")
QUANTITY = _words(
    "interval intervall intervalo intervalle zeit dauer duration width wide broad narrow long longer lang breit breite "
    "length complex estimate measure value approximate approximately ms millisecond milliseconds per minute min "
    "ventricular beating cardiaca cardiaque hoch schlaegt herz above below over under than faster slower greater less "
    "more normal many read off formula electrical deviation left right extreme degree frontal plane mean corazon high "
    "low or long uncorrected duree"
)
AMPLITUDE = _words("amplitude height tall high depth deep millivolt mv wave r s")
NARROWER = frozenset(
    " ".join(word_tuple(text)) for text in ("hyperkalemia", "hypokalemia", "hypercalcemia", "hypocalcemia")
)
"""Phrases of the parser that say more than their statement: electrolyte disturbance is not hyperkalemia."""
ACUTE = _words("acute acutely akut akuter akuten agudo aguda aigu aigue fresh frisch frischer recent hyperacute")
"""No statement says how old an infarction is."""
PICTURES = _words("picture image photo page lead ableitung bild imagen")
"""Whether these are all right is a question about the picture."""
SHORT_SLIPS = {"hart": "heart", "hearth": "heart", "wats": "what", "wat": "what", "waht": "what", "teh": "the",
               "ther": "there", "abnormale": "abnormal"}  # fmt: skip
"""Slips in words of four letters or fewer, and those that another word is as near to."""

_MARKS = {
    "de": (GERMAN | GERMAN_REPORT | _words("lagetyp ich ins muss soll wann warum wer kann mein mich"))
    - _words("die in a es on or"),
    "es": (SPANISH - _words("es y a un la")) | _words("ritmo frecuencia eje hallazgo diagnostico infarto"),
    "fr": (FRENCH - _words("a patient trace on y un es sign signe la tu de t"))
    | _words("rythme frequence axe infarctus"),
}
_GERMAN_PARTS = ("vorhof", "infarkt", "schenkelblock", "rhythmus", "sinusr", "herz", "befund", "hebung", "senkung",
                 "hypertrophie", "schrittmacher", "frequenz", "kammer", "kardie", "zeit", "dauer")  # fmt: skip


def language_of_question(words: tuple[str, ...], text: str) -> str:
    """ "de", "es", "fr", or "en" where none of the others has a word of its own there."""
    counts = {language: sum(word in marks for word in words) for language, marks in _MARKS.items()}
    counts["de"] += sum(any(part in word for part in _GERMAN_PARTS) for word in words)
    counts["es"] += 2 * ("¿" in text)
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else "en"
