"""How many changed lines the tests notice: `python benchmarks/mutants.py eval/parser --tests tests/test_parse.py`.

Each mutant is one change in one line of the files or folders that are named: a comparison that takes its limit in or
leaves it out, a number that is one more, `and` for `or`, a condition that is turned. They are made in a copy of the
repository, one at a time. The tests run until the first fails, those first that have failed before, in a process that
has the libraries loaded already. A mutant that no test notices survives; its line is printed. Some survivors are equal
to the original, and a person has to look. Not for every commit: a file takes minutes.

--sample N draws so many mutants at random, others with another --seed; the default is all of them. The share has its
95 % interval (Wilson 1927).
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

_ROOT = Path(__file__).resolve().parent.parent
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr}
_SECONDS = 120  # of CPU time: a change can make a loop endless
_LIBRARIES = ("pytest", "numpy", "scipy.stats", "scipy.signal", "hypothesis", "PIL.Image", "pyarrow.parquet", "yaml",
              "torch", "transformers.models.mllama.modeling_mllama", "transformers.models.mllama.processing_mllama",
              "transformers.models.qwen3_vl.modeling_qwen3_vl", "datasets", "pandas", "sklearn.metrics",
              "sklearn.linear_model", "sacrebleu", "matplotlib.pyplot", "numba")  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one file: its path below the root, the line, what is changed, and which node of the syntax tree."""

    file: str
    line: int
    change: str
    root: Path
    number: int
    choice: int

    @property
    def source(self) -> str:
        """The new source. It is written anew by `ast`, so comments and layout are lost, not behaviour."""
        tree = ast.parse((self.root / self.file).read_text(encoding="utf-8"))
        _change(next(islice(ast.walk(tree), self.number, None)), self.choice)
        return ast.unparse(tree)


def mutants(file: Path, root: Path = _ROOT) -> Iterator[Mutant]:
    """All mutants of a file."""
    for number, node in enumerate(ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        for choice in range(2):
            if change := _change(copy(node), choice):
                yield Mutant(
                    file.relative_to(root).as_posix(), getattr(node, "lineno", 0), change, root, number, choice
                )


def _change(node: ast.AST, choice: int) -> str:
    """Change a node in place, in one of at most two ways; what was done, "" for nothing."""
    if isinstance(node, ast.Compare) and choice < len(node.ops) and type(node.ops[choice]) in _COMPARISONS:
        new = _COMPARISONS[type(node.ops[choice])]()
        words = f"{type(node.ops[choice]).__name__} -> {type(new).__name__}"
        node.ops = [*node.ops[:choice], new, *node.ops[choice + 1 :]]
        return words
    if choice:
        return ""
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return "and <-> or"
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        words = f"{type(node.op).__name__} -> {_OPERATORS[type(node.op)].__name__}"
        node.op = _OPERATORS[type(node.op)]()
        return words
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        number = node.value
        node.value = number + 1
        return f"{number} -> {node.value}"
    if isinstance(node, (ast.If, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "condition turned"
    return ""


class FormerFailuresFirst:
    """A plugin of pytest: few tests notice most changes.

    failures: a file with the names of the tests that have failed for a mutant; those of this run are added.
    """

    def __init__(self, failures: Path) -> None:
        self.failures = failures

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Move those that have failed most often to the front."""
        counts = Counter(self.failures.read_text(encoding="utf-8").splitlines() if self.failures.exists() else ())
        items.sort(key=lambda item: -counts[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that fails."""
        if report.failed:
            with self.failures.open("a", encoding="utf-8") as file:
                print(report.nodeid, file=file)


def survives(mutant: Mutant, clone: Path, tests: Sequence[str]) -> bool:
    """Whether all tests pass on a copy of the repository with this mutant."""
    file = clone / mutant.file
    original = file.read_bytes()
    file.write_text(mutant.source, encoding="utf-8")
    try:
        return pass_in(clone, tests)
    finally:
        file.write_bytes(original)


def pass_in(clone: Path, tests: Sequence[str]) -> bool:
    """Whether all tests pass on a copy of the repository, in a forked process."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.chdir(clone)
        sys.path.insert(0, str(clone))
        sys.dont_write_bytecode = True
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # its signal ends the process
        words = ["-q", "-x", "-p", "no:cacheprovider", *tests]
        code = int(import_module("pytest").main(words, plugins=[FormerFailuresFirst(clone / "failures.txt")]))
    finally:
        os._exit(code)


def main(words: Sequence[str] | None = None) -> int:
    """Print the survivors; exit code 1 where more than --most of the mutants survive."""
    parser = argparse.ArgumentParser(description="Changed lines that no test notices.")
    parser.add_argument("paths", nargs="+", type=Path, help="files or folders of the repository")
    parser.add_argument("--tests", nargs="+", required=True, help="test files that have to notice")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--most", type=float, default=0.05, help="largest share that may survive (default 0.05)")
    arguments = parser.parse_args(words)
    files = [f for p in arguments.paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    everything = [mutant for file in files for mutant in mutants(file.resolve())]
    count = min(len(everything), arguments.sample or len(everything))
    selection = random.Random(arguments.seed).sample(everything, count)
    survivors = 0
    for name in _LIBRARIES:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "copy"
        shutil.copytree(_ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "site"))
        if not pass_in(clone, arguments.tests):
            print(f"{' '.join(arguments.tests)}: fail without any change")
            return 2
        for mutant in selection:
            if survives(mutant, clone, arguments.tests):
                survivors += 1
                print(f"{mutant.file}:{mutant.line}: {mutant.change}", flush=True)
    share = binomtest(survivors, count).proportion_ci(method="wilson")
    print(
        f"{survivors} of {count} mutants survive "
        f"({survivors / count:.1%}, 95 % interval {share.low:.1%} to {share.high:.1%})"
    )
    return int(survivors > arguments.most * count)


if __name__ == "__main__":
    sys.exit(main())
