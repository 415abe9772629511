"""What an install brings: `python benchmarks/install.py [PYPROJECT ...]` prints packages and megabytes of each extra.

Counted from what is installed here: the closure of the requirements in a pyproject.toml (this project's by default,
others to compare with), each package with the size of the files in its record. torch is a CPU build where that is
installed; a CUDA build is some 3 GB more, whatever else is chosen.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(
    requirements: Iterable[str], own: dict[str, list[str]], *, is_complete: bool = False
) -> dict[str, Distribution]:
    """Name -> distribution of all that these requirements bring.

    Args:
        own: extras of this project, by name.
        is_complete: a package that is not installed raises its PackageNotFoundError; otherwise it is left out.
    """
    packages: dict[str, Distribution] = {}
    expanded: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(text), frozenset({""})) for text in requirements]
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        names = frozenset(requirement.extras) | {""}
        if name == "ecg-vlm":
            waiting += [(Requirement(text), frozenset({""})) for extra in requirement.extras for text in own[extra]]
            continue
        if (name, names) in expanded:
            continue
        expanded.add((name, names))
        try:
            packages[name] = distribution(name)
        except PackageNotFoundError:
            if is_complete:
                raise
            print(f"{name}: not installed here, left out", file=sys.stderr)
            continue
        waiting += [(Requirement(text), names) for text in packages[name].requires or ()]
    return packages


def megabytes(package: Distribution) -> float:
    """Size of a package's files on the disk."""
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc") / 1e6


def main() -> None:
    """A line for the core and for the core with each extra."""
    for file in sys.argv[1:] or [str(Path(__file__).parent.parent / "pyproject.toml")]:
        project = tomllib.loads(Path(file).read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        print(f"{file}: {len(project['dependencies'])} requirements")
        for extra in ("", *(name for name in extras if name not in ("dev", "docs"))):
            texts = [*project["dependencies"], *(extras[extra] if extra else ())]
            packages = closure(texts, extras)
            size = sum(map(megabytes, packages.values()))
            rest = size - megabytes(packages["torch"])
            label = f"[{extra}]" if extra else "core"
            print(f"  {label:12} {len(packages):4} packages, {size:6.0f} MB ({rest:.0f} without torch)")


if __name__ == "__main__":
    main()
