"""Words with their positions: how an answer is normalised and divided into tokens before any lookup.

Normalisation (for the encodings of PTB-XL's reports): case folded, umlauts and sharp s spelt out, accents removed,
British spelling to American, plural to singular, hyphens to spaces. Every token has its position in the original text,
so that the span of a finding can be reported.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from render.statements import STATEMENTS


class Token(NamedTuple):
    """A word or a mark. text: normalised; start, end: position in the answer; code: if written exactly as a code."""

    text: str
    start: int
    end: int
    code: str = ""


BREAK = "\n"
"""Text of the token that ends a sentence: full stop, semicolon, line end."""
BULLET = "\x07"
"""Text of the token that opens a list item."""

_SIGNS = {
    "∅": "no ",
    "↑": " increased ",
    "↓": " decreased ",
    "Δ": "change",
    "δ": "change",
    "➕": " present: ",
    "➖": " absent: ",
}  # of clinicians' notes
_LETTERS = {**_SIGNS, "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "a"}
_MARKS = {"’": "'", "‘": "'", "´": "'", "`": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "−": "-", "–": "-", "—": "-",
          **dict.fromkeys("·▪▫‣◦●○⁃∙", "•"), "✖": "✗", "❎": "❌", "☓": "✗", "■": "☑", "□": "☐"}  # fmt: skip
_ASCII_MARKS = str.maketrans({"`": "'", "\r": "\n", "\v": "\n", "\f": "\n"})
_TICKS = "°☐☑☒✓✔✗✘❌✅→•"
_PLAIN_MARKS = set(',:?()[]{}|/="→>%') | set(_TICKS) - set("°•")  # tokens as they are
_CHECKBOXES = {"[x]": "☑", "[ ]": "☐", "(+)": "✓", "(-)": "✗", "(x)": "☑", "( )": "☐"}

# Compounds that are written as one word, as two, or with a hyphen.
_PREFIXES = {"infero", "antero", "postero", "sub", "supra", "intra", "micro", "hoch", "auriculo"}
_NON = {"specific", "diagnostic"}
_PRE = {"excitation"}
_HYPHENATED = {("a", "v"), ("p", "r"), ("p", "q"), ("q", "t")}
_SIDES = {"link": "links", "recht": "rechts", "vorderwand": "vorderwand", "hinterwand": "hinterwand"}  # as looked up
_WALLS = {
    ("inferior", "lateral"): "inferolateral",
    ("inferior", "posterior"): "inferoposterior",
    ("anterior", "lateral"): "anterolateral",
    ("anterior", "septal"): "anteroseptal",
}
_SAME = {
    "1st": "first", "2nd": "second", "3rd": "third", "°": "degree", "atrioventricular": "av",
    "electrocardiogram": "ecg", "ekg": "ecg", "elektrokardiogramm": "ecg",
    "w/o": "without", "w/": "with", "c/w": "consistent with", "r/o": "rule out", "s/o": "suggestive of",
    "h/o": "history of", "cannot": "can not", "cant": "can not",
    "vs": "versus", "&": "and", "und": "and", "oder": "or", "et": "and", "ou": "or",
    "o/w": "otherwise", "deg": "degree",
    "inf": "inferior", "ant": "anterior", "lat": "lateral", "sept": "septal",
    "nonspec": "nonspecific", "abn": "abnormality", "abnl": "abnormal", "nl": "normal", "repol": "repolarization",
    "hx": "history", "prev": "previous", "w": "with", "compl": "complete", "inkompl": "inkompletter",
    "unvollst": "unvollstaendiger", "unspez": "unspezifische", "incompl": "incomplete", "incomp": "incomplete",
    "chg": "change",
    "elev": "elevation", "dep": "depression", "depr": "depression", "rythm": "rhythm", "rhythym": "rhythm",
    "recip": "reciprocal", "bifasc": "bifascicular", "indet": "indeterminate", "freq": "frequent",
    "favour": "favor", "favours": "favor", "favoured": "favored", "favouring": "favoring", "ondas": "onda",
    "volt": "voltage", "-ve": "negative", "+ve": "positive",
    "infarkt": "infarct", "infarctus": "infarct", "infarto": "infarct", "iam": "infarct", "idm": "infarct",
    "iamcest": "infarct", "myokardinfarkt": "infarct", "hebungsinfarkt": "infarct", "ischaemie": "ischemia",
    "ischemie": "ischemia", "isquemia": "ischemia", "nekrose": "necrosis", "necrose": "necrosis", "necrosi": "necrosis",
    "hypertrophie": "hypertrophy", "ink": "inkompletter",
    "narbe": "scar", "artefact": "artifact", "rules": "exclude",  # "this rules out AF" denies, "rule out AF" doubts
    "tachy": "tachycardia", "brady": "bradycardia", "ts": "t", "hyperk": "hyperkalemia", "hypok": "hypokalemia",
}  # fmt: skip
_ABBREVIATIONS = {
    "v.a", "z.n", "moegl", "vs", "approx", "incl", "ca", "bzw", "evtl", "li", "re", "e.g", "i.e", "unspez", "unbest",
    "poss", "prob", "resp", "intraventr", "inf", "ant", "lat", "sept", "nonspec", "abn", "repol", "compl", "inkompl",
    "incompl", "ink", "unvollst", "pos", "neg", "prev", "st.p", "freq", "elev", "dep", "pat", "path", "indet", "dr",
    "o",
}  # fmt: skip
_COMPOUND_STARTS = (
    "non", "pre", "a", "p", "q", "infero", "antero", "postero", *_PREFIXES, *{left for left, _ in _WALLS}
)  # fmt: skip
"""Ends of the words that `_compound` may join with the next."""
# A shorter line is an item of its own; a longer line whose next line starts in lower case was wrapped.
_WRAPPED_AT = 50
_NEAR = 60  # characters inspected on either side of a mark
# "1." or "b)" or a star at the start of a line; "1. Grades" is an ordinal.
_LIST_MARK = re.compile(r"(?:^|\n)[ \t>#*_]*(\(?(?:\d{1,2}|[a-h])[.)](?=\s)(?!\s*(?:grad|degree))|[*+](?=\s)|•)")
# "Differential: 1. AF 2. flutter" on one line.
_FIRST_OF_LINE = re.compile(r":[ \t*_]*(\(?1[.)])(?=\s)")
_LATER_OF_LINE = re.compile(r"(?<=\s)\(?([1-9][0-9]*)[.)](?=\s)(?!\s*(?:grad|degree))")
_WORD_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.")
_BOXES = {"☑", "☐"}
_BOX_ENDS = {*_BOXES, BREAK, ":"}
_YES_NO = {"ye", "no", "ja", "nein"}  # as normalised
# French and Italian, before a vowel
_ELIDED = {"n", "d", "l", "un", "dell", "all", "nell", "dall", "sull"}
_CONTRACTIONS = {"d": "would", "m": "am", "re": "are", "ve": "have", "ll": "will"}
_REPLY_MARKS = {"a", "answer", "antwort"}
_ORDINALS = {"1", "2", "3", "i", "ii", "iii"}
_GERMAN_SHORT = re.compile(r"\b[vz]\.?( ?[an])?$")
_LINE_END = re.compile("[\n\r\v\f\u2028\u2029]")
_CODE = re.compile(
    r"(?<![A-Za-z0-9_])(?=[A-Z123])(?:"
    + "|".join(re.escape(code) for code in sorted(STATEMENTS, key=len, reverse=True))
    + r")(?![A-Za-z0-9_])"
)
_WORD = re.compile(
    r"\b(?:w/o|c/w|r/o|s/o|h/o|o/w|w/)|[a-z0-9]+(?:'[a-z]+)*|[-+]ve\b|~~|\[[ x]\]|\([ x+-]\)|°"
    r"|[&+]|\*(?=\s)|<|\.{2,}|[-=]>|[,.;:?!()\[\]{}/|=%\"→>•☐☑☒✓✔✗✘❌✅-]|\n"
)


def _marks_in_lines(text: str) -> dict[int, int]:
    """Start -> end of the marks "1.", "2." ... of a list of two and more that goes on in the line of its heading."""
    marks: dict[int, int] = {}
    if not _FIRST_OF_LINE.search(text):
        return marks
    line_start = 0
    for line in text.split("\n"):
        later: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for mark in _LATER_OF_LINE.finditer(line):
            later[mark[1]].append((line_start + mark.start(), line_start + mark.end()))
        for first in _FIRST_OF_LINE.finditer(line):
            start, end, number = line_start + first.start(1), line_start + first.end(1), 1
            while start not in marks:  # a mark of another list of the line goes on as that does
                number += 1
                place = bisect_left(later[str(number)], (end, 0))
                is_last = place == len(later[str(number)])
                if number > 2 or not is_last:
                    marks[start] = end
                if is_last:
                    break
                start, end = later[str(number)][place]
        line_start += len(line) + 1
    return marks


def tokenize(answer: str) -> list[Token]:
    """Divide an answer into tokens. Sentence and line ends become `BREAK`, list marks `BULLET`, other marks stay."""
    plain_text, place = _fold(answer)
    codes = {m.start(): m for m in _CODE.finditer(answer)}
    out: list[Token] = []
    position = 0
    breaks = _line_ends(answer)
    heads = {m.start(1): m.end(1) for m in _LIST_MARK.finditer(plain_text)} | _marks_in_lines(plain_text)
    for match in _WORD.finditer(plain_text):
        at, after = match.span()
        if at < position:  # inside a list mark or a code
            continue
        position = after
        start, end = place[at], place[after - 1] + 1
        if at in heads:
            position = heads[at]
            out.append(Token(BULLET, start, place[position - 1] + 1))
            continue
        piece = match.group()
        if piece == "*":
            continue
        if start in codes:
            code = codes[start]
            out.append(Token(normalize_word(code.group().casefold()), start, code.end(), code.group()))
            while position < len(plain_text) and place[position] < code.end():
                position += 1
            continue
        if piece in _PLAIN_MARKS:
            out.append(Token(piece, start, end))
        elif piece.isalnum():
            first, *further = normalize_words(piece)
            out.append(Token(first, start, end))
            if further:  # seldom
                out += [Token(word, start, end) for word in further]
        elif piece != "\n":
            out += _pieces(piece, start, end, plain_text, at, after)
        elif start in breaks:
            out.append(Token(BREAK, start, end))
    out = _without_reply_marks(out) if "?" in plain_text else out
    has_boxes = "☑" in plain_text or "☐" in plain_text or "[" in plain_text
    return _join_words(_without_boxes(out) if has_boxes else out)


def _without_reply_marks(tokens: list[Token]) -> list[Token]:
    """The tokens of "Q waves? A: none." without the mark of the answer."""
    out: list[Token] = []
    for token in tokens:
        is_mark = token.text == ":" and bool(out) and out[-1].text in _REPLY_MARKS
        if is_mark and any(before.text == "?" for before in out[-3:-1]):
            out.pop()
        else:
            out.append(token)
    return out


def _without_boxes(tokens: list[Token]) -> list[Token]:
    """The tokens, boxes to choose from as words: "Q: ☑ yes ☐ no" is "Q: yes", "infarct: ☑ old ☐ new" "old, not new"."""
    out: list[Token] = []
    is_list = False
    for n, token in enumerate(tokens):
        before, after = tokens[n - 1].text if n else BREAK, tokens[n + 1].text if n + 1 < len(tokens) else BREAK
        if token.text in _BOXES and before == ":":
            end = next((k for k in range(n + 1, min(n + 1 + _NEAR, len(tokens))) if tokens[k].text in _BOX_ENDS), n)
            is_list = tokens[end].text in _BOXES
        if not is_list or token.text == BREAK:
            is_list = False
            out.append(token)
        elif token.text in _BOXES and after not in _YES_NO:
            out += [token._replace(text=",")] if before != ":" else []
            out += [token._replace(text="not")] if token.text == "☐" else []
        elif token.text not in _BOXES and (token.text not in _YES_NO or before == "☑"):
            out.append(token)
    return out


@lru_cache(maxsize=1 << 14)
def normalize_words(text: str) -> tuple[str, ...]:
    """The words that one word stands for, as `normalize_word` gives them: "cannot" is two."""
    return tuple(normalize_word(text).split())


@cache  # of 5,672 words in the tables' patterns 1,442 differ
def word_tuple(phrase: str) -> tuple[str, ...]:
    """The normalised words of a phrase of the tables, marks included."""
    return tuple(token.text for token in tokenize(phrase) if token.text not in (BREAK, BULLET))


_GERMAN_ENDING = re.compile(
    "((?:in)?komplett|(?:un)?vollstaendig|(?:links|rechts|supra|intra|bi)?ventrikulaer|links(?:anterior|posterior|atrial)|"
    "rechtsatrial|unspezifisch|ischaemisch|pathologisch|verlaengert|invertiert|abgeflacht|(?:in)?signifikant)e[mnrs]?"
)
"""German adjectives lose the ending of their case, number and gender."""
_TERRITORY = re.compile(
    "(hoch)?((?:infero|antero|postero)*(?:lateral|sep?t(?=t?al)|(?:inferi|anteri|posteri)(?=eur|or)))(?:t?al)?(?:eur|or)?"
    "(?:e[mnrs]?|es|i)?"
)
"""A territory in German, French, Spanish or Italian."""
TERRITORIES = {
    "inferior", "anterior", "lateral", "septal", "posterior", "anteroseptal", "anterolateral", "inferolateral",
    "inferoposterior", "inferoposterolateral", "posteroinferior",
}  # fmt: skip
"""Territories as a report names them, before or behind their noun."""
_STEMS = {"sept": "septal", "set": "septal", "inferi": "inferior", "anteri": "anterior", "posteri": "posterior"}


@lru_cache(maxsize=1 << 14)
def normalize_word(text: str) -> str:
    """One word in lower case in the form used for lookups: American and singular."""
    text = _SAME.get(text, text)
    if len(text) > 5:
        text = text.replace("aem", "em").replace("isation", "ization").replace("ised", "ized")
    if len(text) > 5 and (territory := _TERRITORY.fullmatch(text)):
        stem = territory[2]
        end = next((end for end in _STEMS if stem.endswith(end)), "")
        return ("high " if territory[1] else "") + stem.removesuffix(end) + _STEMS.get(end, "")
    if german := _GERMAN_ENDING.fullmatch(text):
        return f"{german[1]}e"
    if len(text) > 7 and text.endswith("as"):  # Spanish
        return text[:-1]
    if len(text) > 4 and text.endswith("ies"):
        return text[:-3] + "y"
    if len(text) > 4 and text.endswith("xes"):
        return text[:-2]
    plural = text.endswith("s") and not text.endswith(("ss", "us", "is", "as")) and text not in ("qs", "its")
    if len(text) > 2 and plural:
        return text[:-1]
    return text


def _fold(answer: str) -> tuple[str, Sequence[int]]:
    """The answer in lower-case ASCII (as far as possible), and the original position of each of its characters."""
    if answer.isascii():
        return answer.lower().translate(_ASCII_MARKS), range(len(answer))
    out: list[str] = []
    place: list[int] = []
    for index, char in enumerate(answer):
        decomposed_umlaut = char == "\u0308" and out and out[-1] in "aou"  # the letter, then its dots
        text = "e" if decomposed_umlaut else _fold_character(char)
        out += text
        place += [index] * len(text)
    return "".join(out), place


@lru_cache(maxsize=1 << 12)
def _fold_character(char: str) -> str:
    return "".join(_LETTERS.get(c, _plain(c)) for c in _MARKS.get(char, char).casefold())


def _plain(char: str) -> str:
    if char in "\r\v\f\u2028\u2029":
        return "\n"
    if char.isascii() or char in _TICKS:
        return char
    base_letters = "".join(c for c in unicodedata.normalize("NFKD", char) if c.isascii())
    return base_letters or " "


def _pieces(text: str, start: int, end: int, plain_text: str, at: int, after: int) -> list[Token]:
    """The tokens of one raw piece: contractions are divided, marks are interpreted by their context."""
    if text == "<":
        return [Token("below", start, end)]
    if text in ("->", "=>"):
        return [Token("→", start, end)]
    if text == "~~":  # around what is struck out
        return [Token("not" if plain_text[after : after + 1].isalnum() else ",", start, end)]
    if text == "-":
        return _dash(start, end, plain_text, at, after)
    if text.startswith(".."):  # "PR ..... prolonged" has dot leaders, "possible ... no, certain" a pause
        return [Token(BREAK if len(text) <= 3 and after < len(plain_text) else ":", start, end)]
    if text == ".":
        return [Token(BREAK, start, end)] if _ends_sentence(plain_text, at, after) else []
    if text in _CHECKBOXES:
        return [Token(_CHECKBOXES[text], start, end)]
    if text == "+":  # "LVH +, RVH -" are values, "LVH + RVH" is a list
        return [Token("and" if re.match(r"\s*\w", plain_text[after : after + _NEAR]) else "✓", start, end)]
    if text in ";!•":
        return [Token(BREAK, start, end)]
    if text.endswith("n't"):
        stem = {"ca": "can", "wo": "will"}.get(text[:-3], text[:-3])
        return [Token(normalize_word(stem), start, end), Token("not", start, end)]
    article, _, noun = text.partition("'")
    if article in _ELIDED and noun:
        return [Token(normalize_word(noun.replace("'", "")), start, end)]
    word, _, ending = text.rpartition("'")
    if word and ending in _CONTRACTIONS:  # "we'd expect"
        return [Token(normalize_word(word), start, end), Token(_CONTRACTIONS[ending], start, end)]
    if text in ("q's", "t's", "p's"):
        return [Token(text[0], start, end), Token("wave", start, end)]
    text = normalize_word(text.split("'")[0] if text.endswith("'s") else text.replace("'", ""))
    return [Token(part, start, end) for part in text.split()]


def _dash(start: int, end: int, plain_text: str, at: int, after: int) -> list[Token]:
    """A hyphen inside a word is a space; at the start of a line a list mark; between spaces a colon."""
    before = plain_text[max(0, at - _NEAR) : at].rpartition("\n")[2]
    if not before.strip():
        return [Token(BULLET, start, end)]
    if before.endswith(" ") and plain_text[after : after + 1] == " ":
        return [Token(":", start, end)]
    if before.endswith(" ") and re.match(r"[ \t]*(?:[,;.)|\n]|$)", plain_text[after : after + _NEAR]):
        return [Token("✗", start, end)]
    return (
        [Token("-", start, end)]
        if re.match(r"\d", plain_text[after : after + _NEAR]) and before[-1:] in "0123456789 "
        else []
    )


def _line_ends(answer: str) -> set[int]:
    """Positions of the line ends that also end a sentence: all except those of wrapped lines."""
    ends = set()
    line_start = 0
    for match in _LINE_END.finditer(answer):
        index = match.start()
        line = answer[line_start:index].rstrip()
        following = answer[index + 1 : index + 2]
        if not (len(line) >= _WRAPPED_AT and line[-1] not in ".:;!?" and following.islower()):
            ends.add(index)
        line_start = index + 1
    return ends


def _ends_sentence(plain_text: str, at: int, after: int) -> bool:
    following = plain_text[after : after + 1]
    if following and not following.isspace() and following not in ")\"'*]":
        return False
    start = at
    while start > max(0, at - _NEAR) and plain_text[start - 1] in _WORD_LETTERS:
        start -= 1
    before = plain_text[start:at]
    if before.strip(".") in _ABBREVIATIONS:
        return False
    left = plain_text[max(0, at - _NEAR) : at]
    if _GERMAN_SHORT.search(left[-6:]) and re.match(r"\s*([an]\.|[a-z])", plain_text[after : after + _NEAR]):
        return False  # "V. a.", "Z. n."
    # "AV-Block 1. Grades", "2. degree": an ordinal, not an end
    return before not in _ORDINALS or not re.match(r"\s*(grad|degree)", plain_text[after : after + _NEAR])


def _join_words(tokens: list[Token]) -> list[Token]:
    """Join the parts of compounds: "infero lateral", "non specific"; complete "Links- und Rechtsschenkelblock"."""
    out: list[Token] = []
    for n, token in enumerate(tokens):
        if token.text in _SIDES and n + 2 < len(tokens):
            compound = _shared_compound(tokens[n + 2].text)
            token = token._replace(text=_SIDES[token.text] + compound) if compound else token
        last = out[-1] if out else None
        if token.text == "may" and last and last.text.isdigit():
            token = token._replace(text="month")  # "the ECG of 4 May"
        compound = ""
        if last and last.text.endswith(_COMPOUND_STARTS) and not last.code and not token.code:
            compound = _compound(last.text, token.text)
        if last and compound:
            out[-1] = Token(compound, last.start, token.end)
        else:
            out.append(token)
    return out


def _shared_compound(text: str) -> str:
    """What follows a side in a German compound ("rechtsschenkelblock"), or ""."""
    return next((text[len(s) :] for s in _SIDES.values() if text.startswith(s)), "")


def _compound(left: str, right: str) -> str:
    """The compound of two words, or "" if they are none."""
    if (left, right) == ("non", "spec"):
        return "nonspecific"
    if left in _PREFIXES or left.endswith(("infero", "antero", "postero")):
        return left + right if right.isalpha() and len(right) > 3 else ""
    if (left, right) in _WALLS:
        return _WALLS[left, right]
    joins = (left, right) in _HYPHENATED or (left == "non" and right in _NON) or (left == "pre" and right in _PRE)
    return left + right if joins else ""
