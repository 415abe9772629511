"""How many changed lines the tests notice: `python benchmarks/mutants.py eval/parser --tests tests/test_parse.py`.

Each mutant is one change in one line of the files or folders that are named: a comparison that takes its limit in or
leaves it out, a number that is one more, `and` for `or`, a condition that is turned. They are made in a copy of the
repository, one at a time, and the tests run until the first fails. A mutant that no test notices survives; its line is
printed. Some survivors are equal to the original, and a person has to look. Not for every commit: a file takes minutes.

--sample N takes so many mutants, spread evenly; the default is all of them.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr}
_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """One change of one file: its path below the root, the line, the new source, and what was changed."""

    file: str
    line: int
    source: str
    change: str


def mutants(file: Path, root: Path = _ROOT) -> Iterator[Mutant]:
    """All mutants of a file. The source is written anew by `ast`, so comments and layout are lost, not behaviour."""
    text = file.read_text(encoding="utf-8")
    count = sum(1 for _ in ast.walk(ast.parse(text)))
    original = ast.unparse(ast.parse(text))
    for number in range(count):
        for choice in range(2):
            tree = ast.parse(text)
            node = next(n for i, n in enumerate(ast.walk(tree)) if i == number)
            change = _change(node, choice)
            if not change:
                break
            source = ast.unparse(tree)
            if source != original:
                yield Mutant(file.relative_to(root).as_posix(), getattr(node, "lineno", 0), source, change)


def _change(node: ast.AST, choice: int) -> str:
    """Change a node in place, in one of at most two ways; what was done, "" for nothing."""
    if isinstance(node, ast.Compare) and choice < len(node.ops) and type(node.ops[choice]) in _COMPARISONS:
        new = _COMPARISONS[type(node.ops[choice])]()
        words = f"{type(node.ops[choice]).__name__} -> {type(new).__name__}"
        node.ops[choice] = new
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


def survives(mutant: Mutant, copy: Path, tests: Sequence[str]) -> bool:
    """Whether all tests pass on a copy of the repository with this mutant."""
    file = copy / mutant.file
    original = file.read_bytes()
    file.write_text(mutant.source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return (
            subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, timeout=_SECONDS, check=False
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:  # the change made a loop endless
        return False
    finally:
        file.write_bytes(original)


def main(words: Sequence[str] | None = None) -> int:
    """Print the survivors; exit code 1 where more than --most of the mutants survive."""
    parser = argparse.ArgumentParser(description="Changed lines that no test notices.")
    parser.add_argument("paths", nargs="+", type=Path, help="files or folders of the repository")
    parser.add_argument("--tests", nargs="+", required=True, help="test files that have to notice")
    parser.add_argument("--sample", type=int, help="so many mutants, spread evenly")
    parser.add_argument("--most", type=float, default=0.05, help="largest share that may survive (default 0.05)")
    arguments = parser.parse_args(words)
    files = [f for p in arguments.paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    everything = [mutant for file in files for mutant in mutants(file.resolve())]
    step = max(1, len(everything) // arguments.sample) if arguments.sample else 1
    selection = everything[::step]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(_ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "site"))
        for mutant in selection:
            if survives(mutant, copy, arguments.tests):
                survivors += 1
                print(f"{mutant.file}:{mutant.line}: {mutant.change}", flush=True)
    print(f"{survivors} of {len(selection)} mutants survive ({survivors / max(1, len(selection)):.1%})")
    return int(survivors > arguments.most * len(selection))


if __name__ == "__main__":
    sys.exit(main())
