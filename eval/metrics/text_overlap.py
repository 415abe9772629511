"""How near an answer's words come to a reference report: BLEU, chrF and ROUGE-L.

They count shared words and letters. A report that denies what the reference states scores high, so they stand beside
the statements read from the answers and never in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from render.errors import InputError


@dataclass(frozen=True)
class TextMetrics:
    """Corpus BLEU (0 to 100), corpus chrF (0 to 100), mean ROUGE-L F-measure (0 to 100) over `pairs` answers.

    signature: how sacrebleu computed them, in its own words.
    """

    pairs: int
    bleu: float
    chrf: float
    rouge_l: float
    signature: str


def text_metrics(answers: Sequence[str], references: Sequence[str]) -> TextMetrics | None:
    """Figures over the pairs that have a reference; None when none has.

    BLEU: Papineni et al. 2002 as fixed by Post 2018 (sacrebleu, case-insensitive here: reports differ in capitals only
    by habit). chrF: Popovic 2015. ROUGE-L: Lin 2004, no stemming (reports are German as well as English).
    """
    pairs = [(a, r) for a, r in zip(answers, references, strict=True) if r.strip()]
    if not pairs:
        return None
    try:
        from rouge_score import rouge_scorer  # type: ignore[import-untyped,unused-ignore]
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise InputError(
            f"report-text metrics need {error.name}; install it: pip install sacrebleu rouge-score"
        ) from error
    said, wanted = [a for a, _ in pairs], [r for _, r in pairs]
    bleu, chrf = BLEU(lowercase=True), CHRF(lowercase=True)
    b, c = bleu.corpus_score(said, [wanted]), chrf.corpus_score(said, [wanted])
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Words())
    rouge = [scorer.score(r, a)["rougeL"].fmeasure for a, r in pairs]
    signature = f"{bleu.get_signature()}; {chrf.get_signature()}"
    return TextMetrics(len(pairs), float(b.score), float(c.score), 100 * sum(rouge) / len(rouge), signature)


class _Words:
    """Words of letters and digits in any language: rouge_score's own tokenizer drops what is not ASCII."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words."""
        return "".join(ch if ch.isalnum() else " " for ch in text.lower()).split()
