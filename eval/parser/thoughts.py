"""What a reasoning model thinks before it answers, which is no part of its answer.

Read are the marks of DeepSeek-R1, Qwen3 and those tuned like them (`<think>`), Magistral (`[THINK]`), Kimi
(`◁think▷`), gpt-oss (`<|channel|>final<|message|>`), and the `<answer>` that many are rewarded for. A chat template may
have written the opening mark already.
"""

from __future__ import annotations

import re

__all__ = ["without_thoughts"]

_NAMES = "(?:think(?:ing)?|thoughts?|reasoning|scratchpad)"
_BEGIN = re.compile(rf"\s*(?:<{_NAMES}>|\[THINK\]|◁think▷|<\|channel\|>analysis)", re.IGNORECASE)
_END = re.compile(rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_END = re.compile(r"</answer>", re.IGNORECASE)


def without_thoughts(answer: str, longest: int) -> str:
    """An answer with blanks in place of the thoughts before it, so that places in it stay; `longest` characters behind.

    Thoughts that never end are all that there is of an answer that was cut off: nothing is left of it.
    """
    start, end = 0, len(answer)
    for match in _END.finditer(answer):
        start = match.end()
    if not start and _BEGIN.match(answer):
        return ""
    tagged = False
    for match in _ANSWER.finditer(answer, start):
        start, tagged = match.end(), True
    if tagged and (closing := _ANSWER_END.search(answer, start)):
        end = closing.start()
    return " " * start + answer[start : min(end, start + longest)]
