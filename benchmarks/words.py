"""Whether names stay in the field's standard words: `python benchmarks/words.py [--top N]` (or `make words`).

Counts, over the identifiers of the four packages:

- bare participles ("found", "kept", "_drawn"): names that say what happened to a thing instead of what it is. Forms
  that are also a noun, a verb's base form or a standard adjective of the field (`left`, `read`, `split`, `hidden` ...)
  do not count, nor do names that belong to Python or a library (`sorted`, `@dataclass(frozen=True)`, `searchsorted`);
- public names that stand in two modules, and thereby may mean two things. The commands' `add_arguments` and `run` are
  one thing in many modules, and are left out.

Exits 1 when participles reach 0.1 % of all name tokens, or when a public name stands in two modules.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("ecg_vlm", "eval", "recipes", "render")
LIMIT = 0.001

_IRREGULAR = """
been begun born bought bound broken brought built caught chosen come done drawn driven eaten fallen felt
forgotten fought found frozen given gone got grown heard held hung kept known laid led lent lit lost made
meant met paid ridden risen said seen sent shown shut slept sold sought spent spoilt spoken spread sprung
stolen stood struck stuck sung sunk swept sworn swum taken taught thought thrown told torn understood woken
won worn wound woven written
"""
# Nouns, verbs and the field's adjectives (a closed question, a mixed layout) that end like participles.
_NO_PARTICIPLES = """
bed bleed breed embed exceed feed hundred indeed need proceed red sacred seed shed speed succeed weed closed mixed
"""
IRREGULAR, NO_PARTICIPLES = frozenset(_IRREGULAR.split()), frozenset(_NO_PARTICIPLES.split())
LIBRARY = frozenset({"frozen", "searchsorted", "nested", "PackageNotFoundError"})  # arguments and methods of others
COMMAND_PROTOCOL = frozenset({"HELP", "DESCRIPTION", "EXTRA", "EXAMPLES", "add_arguments", "run"})


def is_participle(name: str) -> bool:
    """Whether a whole name, underscores at its ends aside, is one past participle."""
    word = name.strip("_")
    if hasattr(builtins, name) or name in LIBRARY or not re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]+", word):
        return False
    word = word.lower()
    return word in IRREGULAR or (word.endswith("ed") and len(word) > 4 and word not in NO_PARTICIPLES)


def name_tokens(path: Path) -> Iterator[str]:
    """Every identifier of a Python file, in order."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
                yield token.string


def public_names(path: Path) -> set[str]:
    """What a module defines at its top level without a leading underscore."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def main() -> int:
    """Print both counts; 1 when either is over its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders (default: the four packages)")
    parser.add_argument("--top", type=int, default=20, help="how many participles to list")
    options = parser.parse_args()
    root = Path(__file__).parent.parent
    roots = options.paths or [root / package for package in PACKAGES]
    files = sorted(file for path in roots for file in (path.rglob("*.py") if path.is_dir() else [path]))
    tokens = 0
    participles: Counter[str] = Counter()
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        place = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
        for name in name_tokens(file):
            tokens += 1
            if is_participle(name):
                participles[name] += 1
                places[name][place] += 1
        for name in public_names(file) - COMMAND_PROTOCOL:
            homes[name].append(place)
    count = participles.total()
    print(f"{tokens:,} name tokens in {len(files)} files; {count} bare participles ({count / max(tokens, 1):.2%})")
    for name, number in participles.most_common(options.top):
        print(f"  {number:4} {name:16} {', '.join(f'{p} {n}' for p, n in places[name].most_common(4))}")
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    print(f"{len(twice)} public names stand in two modules")
    for name, where in sorted(twice.items()):
        print(f"  {name}: {', '.join(where)}")
    return int(count >= LIMIT * tokens or bool(twice))


if __name__ == "__main__":
    sys.exit(main())
