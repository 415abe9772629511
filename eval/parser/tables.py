"""Tables and objects in an answer: a cell gets from its header, and a value from its key, what that says about it.

"| Leads | ST segment |" over "| II, III | elevated |" means that the ST segment is elevated; under
"| | Present | Absent |" a mark in the last column denies; under "| LVH | RVH |" a "no" denies what stands above it.
`{"finding": "LVH", "present": false}` is read as "finding: LVH: false".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from eval.parser.lexicon import lexicon
from eval.parser.phrase_matcher import INTERVALS, longest_match
from eval.parser.tokenizer import BREAK, Token, word_tuple

WAVES = {"st", "t", "p", "q", "r", "qr", *INTERVALS}
"""Waves and intervals, QRS as normalised."""
_TOPIC_WORDS = WAVES | set(word_tuple("wave segment interval complex and /"))
_STATUSES = set(
    word_tuple("present absent yes no possible uncertain unclear probable positive negative ja nein normal abnormal")
)
_VALUES = _STATUSES | set(word_tuple("none ✓ ✔ ✅ ☑ ✗ ✘ ❌ x"))
_VERDICTS = set(word_tuple("verdict likelihood probability status conclusion"))
_PROBABILITIES = {"probability", "likelihood"}
_SHARES = {*_PROBABILITIES, "confidence"}
_CERTAINTIES, _DOUBTFUL = {"confidence", "certainty"}, {"low", "moderate", "medium"}
_Q_WAVE = (["q"], ["q", "wave"])
_MARKS = set(word_tuple("✓ ✔ ✅ ☑ ☒ x yes"))
_EMPTY = {"✗", "-", "none", "no"}
_MAX_KEY = 4  # words
_MAX_OBJECT = 20  # words before its confidence
_LINK_KEYS = {"present", "detected", "status", "value", "certainty", *_PROBABILITIES}
"""They tell of the finding before them."""


def with_headers(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of an answer, its tables completed. Tokens keep their positions; new ones have that of the cell."""
    lines = [list(line) for _, line in groupby(_numbered(tokens), key=lambda pair: pair[0])]
    out: list[Token] = []
    for is_table, block in groupby(([token for _, token in line] for line in lines), key=_is_row):
        rows = list(block)
        out += [token for row in (_completed(rows) if is_table else rows) for token in row]
    return out


def with_keys(tokens: Sequence[Token]) -> list[Token]:
    """The tokens of an answer with an object: each key begins a sentence, unless it tells of the value before it."""
    tokens = [token for token in tokens if token.text != '"']
    out: list[Token] = []
    n = 0
    while n < len(tokens):
        token = tokens[n]
        key = [word.text for word in tokens[n + 1 : _key_end(tokens, n + 1)]] if token.text in (",", "{") else []
        if token.text == "[" and tokens[n + 1 : n + 2] and tokens[n + 1].text == "]":
            out.append(token._replace(text="none"))  # "findings": []
            n += 2
            continue
        if _LINK_KEYS.isdisjoint(key[:1]) and not (key == ["confidence"] and _rates(tokens, n)):
            out.append(token._replace(text=BREAK) if key or token.text in ("{", "}") else token)
            n += 1
            continue
        n += 1 + len(key)
        if token.text == ",":  # behind a brace the colon of the outer key is there: {"LVH": {"present": true}}
            out.append(tokens[n])
        value = n + 1
        is_share = not _SHARES.isdisjoint(key)
        while is_share and n + 1 < len(tokens) and tokens[n + 1].text.isdigit():
            n += 1
        out += [tokens[value]._replace(text="probable")] if n >= value else []
        n += 1
    return out


def _rates(tokens: Sequence[Token], n: int) -> bool:
    """Whether the confidence behind the comma at n is a number for the only value before: {"code": "AF", ...: 0.98}."""
    colons = 0
    for token in reversed(tokens[max(0, n - _MAX_OBJECT) : n]):
        if token.text == "{":
            return colons == 1 and any(number.text.isdigit() for number in tokens[n + 3 : n + 4])
        colons += token.text == ":"
    return False


def _key_end(tokens: Sequence[Token], start: int) -> int:
    """The place of the colon behind the key that begins at `start`; `start` where none does."""
    end = start
    while end < min(len(tokens), start + _MAX_KEY) and tokens[end].text.isalnum():
        end += 1
    return end if end < len(tokens) and tokens[end].text == ":" else start


def _numbered(tokens: Sequence[Token]) -> list[tuple[int, Token]]:
    """Every token with the number of its line."""
    line, out = 0, []
    for token in tokens:
        out.append((line, token))
        line += token.text == BREAK
    return out


def _is_row(line: Sequence[Token]) -> bool:
    return any(token.text == "|" for token in line)


def _completed(rows: Sequence[list[Token]]) -> list[list[Token]]:
    """The rows of one table, each cell with what the header of its column says about it."""
    headers = [[token.text for token in cell if token.text != ":"] for cell in _cells(rows[0])]
    if len(rows) < 2:
        return list(rows)
    if len(headers) > 2:
        rows = [_without_dashes(row) for row in rows]
    verdict = next((n for n, header in enumerate(headers) if not _VERDICTS.isdisjoint(header)), 0)
    # Whether the findings are in the first column.
    in_rows = any(_names_statement([token.text for token in _cells(row)[0]]) for row in rows[1:])
    places = [[token.text for token in _cells(row)[0]] for row in rows[1:]]
    names = [
        not in_rows and (_names_statement(header) or any(_codes(place + header) for place in places if header))
        for header in headers
    ]
    choice = sum(header[:1] != [] and header[0] in _STATUSES for header in headers) > 1
    out = [_without_names(rows[0], names) if _has_values(rows[1:], names) else rows[0]]
    for row in rows[1:]:
        cells = _cells(row)
        bars = [token for token in row if token.text in ("|", BREAK)]
        if len(cells) != len(headers):
            out.append(row)
            continue
        first = [token.text for token in cells[0]]
        heads = [
            first + header if name and _codes(first + header) not in ((), _codes(header)) else header
            for header, name in zip(headers, names, strict=True)
        ]  # "Inferior" under "Territory", "Ischaemia"
        filled = [_filled(*column, choice) for column in zip(cells, heads, names, strict=True)]
        if verdict and in_rows:  # the verdict stands next to the finding that it is about
            filled.insert(1, filled.pop(verdict))
        lead = row[0].text == "|"
        line = bars[:lead]
        for n, cell in enumerate(filled):
            line += cell + bars[lead + n : lead + n + 1]
        out.append(line + bars[lead + len(filled) :])
    return out


def _without_dashes(row: Sequence[Token]) -> list[Token]:
    """A row without dashes that are alone in their cell: in a column of comments they deny nothing."""
    texts = [BREAK, *(token.text for token in row), BREAK]
    bars = ("|", BREAK)
    return [
        token
        for n, token in enumerate(row, 1)
        if token.text not in (":", "✗") or texts[n - 1] not in bars or texts[n + 1] not in bars
    ]


def _cells(row: Sequence[Token]) -> list[list[Token]]:
    """The tokens between the bars of a row."""
    cells: list[list[Token]] = [[]]
    for token in row:
        if token.text == "|":
            cells.append([])
        elif token.text != BREAK:
            cells[-1].append(token)
    first = row[0].text == "|"
    last = len(cells) > first + 1 and [token.text for token in row if token.text != BREAK][-1] == "|"
    return cells[first : len(cells) - last]


def _is_topic(header: Sequence[str]) -> bool:
    return not WAVES.isdisjoint(header) and _TOPIC_WORDS.issuperset(header)


def _names_statement(header: Sequence[str]) -> bool:
    """Whether a header is the name of a finding, which the cells below it then assert or deny."""
    return bool(header) and not _is_topic(header) and bool(_codes(header))


def _codes(words: Sequence[str]) -> tuple[str, ...]:
    """The codes of the statement that all of `words` name, or ()."""
    match = longest_match(words, 0, {})
    return lexicon().meanings[match.sequence].codes if match and match.end == len(words) else ()


def _has_values(rows: Sequence[Sequence[Token]], names: Sequence[bool]) -> bool:
    """Whether the cells under names of findings are values."""
    cells = [
        cell
        for row in rows
        for cell, name in zip(_cells(row), names, strict=False)
        if name and cell and any(token.text.isalnum() for token in cell)
    ]
    return bool(cells) and all(cell[0].text in _VALUES for cell in cells)


def _without_names(row: Sequence[Token], names: Sequence[bool]) -> list[Token]:
    """A header row without the names that its columns' cells repeat."""
    column = -(row[0].text == "|")
    out = []
    for token in row:
        column += token.text == "|"
        if token.text in ("|", BREAK) or not (0 <= column < len(names) and names[column]):
            out.append(token)
    return out


def _filled(cell: list[Token], header: Sequence[str], is_name: bool, choice: bool) -> list[Token]:
    """A cell with the words of its header where it needs them to be read. choice: several headers are statuses."""
    if not header or not cell:
        return cell
    first = cell[0]
    words = [Token(word, first.start, first.start) for word in header]
    if choice and header[0] in _STATUSES:
        if len(cell) == 1 and first.text in _MARKS:
            return [Token(header[0], first.start, first.end)]
        if len(cell) == 1 and first.text in _EMPTY:
            return []
        opening = [Token(word, first.start, first.start) for word in (BREAK, *header, ":")]
        return [*opening, *cell] if header[0] in ("present", "absent") else cell
    if header[0] in _CERTAINTIES and first.text in _DOUBTFUL:
        return [first._replace(text="probable")]
    if is_name and first.text in _VALUES:
        return [*words, Token(":", first.start, first.start), *cell]
    if list(header) in _Q_WAVE and first.text in _VALUES:
        return [*words[:1], Token("wave", first.start, first.start), Token(":", first.start, first.start), *cell]
    if not _PROBABILITIES.isdisjoint(header) and first.text.replace(".", "").isdigit():
        return [first._replace(text="probable")]
    if _is_topic(header) and WAVES.isdisjoint(token.text for token in cell):
        return [*words, *cell]
    return cell
