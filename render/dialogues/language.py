"""Which language a report is written in: German, English, or neither of the two for sure."""

from __future__ import annotations

import re

# Words that stand in reports of one language and not in those of the others. PTB-XL's Swedish reports share roots with
# German ("sinusrytm", "infarkt"), so Swedish has a list too, and counts as neither.
_TELLING = {
    "de": (
        "sinusrhythmus sinusbradykardie sinustachykardie vorhofflimmern vorhofflattern lagetyp linkstyp rechtstyp "
        "steiltyp normales pathologisches extrasystole extrasystolen ableitung ableitungen rechtsschenkelblock "
        "linksschenkelblock schenkelblock hemiblock unvollständiger unspezifisches unspezifische unspezifischer abnorm "
        "infarkt herzinfarkt myokardschaden ischämie linksbelastung linkshypertrophie rechtshypertrophie hypertrophie "
        "niederspannung periphere arrhythmie bericht unbestätigter möglich mögl wahrscheinlich vermutlich alter alt "
        "senkung hebung veränderung veränderungen verlängert verlängerung überdrehter ueberdrehter schrittmacher sonst "
        "ansonsten oder und mit ohne kein keine nicht nach bei auf der die das vom für verdacht hinweis zeichen "
        "vorderwand hinterwand regelmässiger regelmäßiger rhythmus tachykardes ventrikuläre supraventrikuläre "
        "ekg"
    ),
    "en": (
        "rhythm normal sinus ecg tracing the and with are is this of be due to or may no otherwise left right axis "
        "deviation waves wave leads lead block bundle branch premature contraction complexes infarction ischaemia "
        "ischemia myocardial possible probable probably likely suggesting consistent low voltage voltages depressed "
        "inverted flat segments segment fibrillation flutter tachycardia bradycardia incomplete complete hypertrophy "
        "prolonged interval old changes trace requested only pathology"
    ),
    "other": (
        "sinusrytm rytm normalt avvikande förlopp vänster höger axel förmaksflimmer skänkelblock förändring såsom vid "
        "sannolikt möjligen eller bör övervägas sänkning höjning ej ålder äldre kan uteslutas ischemi myokardskada "
        "eljest för med och utan"
    ),
}
_WORDS = {language: frozenset(text.split()) for language, text in _TELLING.items()}


def language_of(text: str) -> str:
    """ "de", "en", or "" where neither language has more telling words than all others together.

    On PTB-XL's reports: 60 of 60 drawn among those called German were German. Swedish ones give "".
    Case is ignored, as PTB-XL's reports hold umlauts as capitals ("unbestÄtigter").
    """
    words = re.findall(r"[^\W\d_]+", text.lower())
    votes = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    best = max(votes, key=lambda language: votes[language])
    return best if best != "other" and 2 * votes[best] > sum(votes.values()) else ""
