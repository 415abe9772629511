"""Licences of all that an install brings: `python -m benchmarks.licences` (or `make licences`) writes docs/licences.md.

Read from the metadata and the licence files of what is installed here, for the core and every extra but [dev] and
[docs]. A licence is taken from License-Expression, then from License, then from the classifiers. It exits 1 when a
package has no licence, one that is not in COMPATIBLE, or a licence file under the GPL or LGPL that GPL_PARTS does not
explain: wheels carry libraries of others, and their licences are often not in the metadata.

Packages for another system (Windows, CUDA builds) are not seen.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

from benchmarks.install import closure

_ROOT = Path(__file__).parents[1]

COMPATIBLE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "CNRI-Python", "ISC", "LGPL-3.0-only", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "OFL-1.1", "PSF-2.0"),
    "Zlib",
}
"""Licences under which an Apache-2.0 program may use an unmodified library that it does not itself distribute. LGPL:
the library can be replaced; MPL: only its own files fall under it."""

# How License and the classifiers write the names of SPDX. "BSD" does not tell how many clauses; all are compatible.
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "isc license": "ISC",
    "mit license": "MIT",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "sil ofl 1.1": "OFL-1.1",
    # pypdfium2's list in place of an expression; for what its build brings along see GPL_PARTS.
    "bsd-3-clause, apache-2.0, dependency licenses": "BSD-3-Clause AND Apache-2.0",
}

GPL_PARTS = {
    "fpdf2": "LGPL-3.0: imported as it is, and can be replaced.",
    "numpy": "libgfortran (GPL-3.0 with the GCC runtime exception) and libquadmath (LGPL-2.1), both shared libraries.",
    "pillow-heif": (
        "**Binary wheels are GPL-2.0 as a whole**: they hold the encoder x265 beside libheif and libde265 (LGPL-3.0). "
        "Only [formats] and [serve] bring it, and only to read HEIC pictures. Who passes on an environment or a "
        "container image with it passes on x265 under the GPL. Without it a HEIC picture is refused in one line, and "
        "all else works."
    ),
    "pypdfium2": "Only wheels for musl hold libgcc and libstdc++ (GPL-3.0 with the GCC runtime exception).",
    "scipy": "libgfortran and libquadmath, as numpy.",
    "setuptools": "A vendored build helper (autocommand, LGPL-3.0) that nothing here calls.",
    "soundfile": "libsndfile and its codecs: LGPL-2.1, loaded at run time, and can be replaced; wfdb brings it.",
    "torch": "The licence file of a test server (kineto, cpr) lies in the wheel, the server itself does not.",
}
"""Package -> why parts under the GPL or LGPL in its wheel do no harm, or to whom they do."""

_TITLE = re.compile(
    r"^\W*(?:(?:GNU|the) (?:lesser |library |affero )?general public license\W*$|licen[sc]e: *[al]?gpl.*$)",
    re.IGNORECASE | re.MULTILINE,
)
_LICENCE_FILE = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
_TEXT_SUFFIXES = frozenset(("", ".txt", ".md", ".rst"))


_HEAD = """# Licences of what an install brings

Written by `make licences` from the metadata of {count} installed packages; it fails where a licence is unknown or not
compatible with Apache-2.0. None of them is part of ecg-vlm's own wheel. Taken on Linux with a CPU build of torch: a
CUDA build brings libraries under NVIDIA's own licence, which are not looked at here.

Parts under the GPL or LGPL that wheels carry along:
"""


class Licence(NamedTuple):
    """A package and its licence: an SPDX expression, or "" if unknown; whether a licence file is a GPL or LGPL."""

    name: str
    version: str
    expression: str
    has_gpl_parts: bool

    @property
    def problem(self) -> str:
        """Why it cannot pass, or ""."""
        if not self.expression:
            return "its licence is unknown"
        if not is_compatible(self.expression):
            return f"{self.expression} is not in COMPATIBLE"
        return (
            "GPL or LGPL parts that GPL_PARTS does not explain"
            if self.has_gpl_parts and self.name not in GPL_PARTS
            else ""
        )


def is_compatible(expression: str) -> bool:
    """Whether one of the alternatives of an SPDX expression (without parentheses) has compatible licences alone."""
    return any(COMPATIBLE.issuperset(choice.split(" AND ")) for choice in expression.split(" OR "))


def licence_of(name: str, package: Distribution) -> Licence:
    """The licence of an installed package, from its metadata and its licence files."""
    metadata = package.metadata
    classifiers = [text for text in metadata.get_all("Classifier", []) if text.startswith("License ::")]
    expression = next(iter(metadata.get_all("License-Expression", [])), "") or _spdx(
        (*metadata.get_all("License", []), *(text.rsplit(" :: ", 1)[-1].split(" (")[0] for text in classifiers))
    )
    paths = (file for file in package.files or () if _LICENCE_FILE.search(str(file)) and file.suffix in _TEXT_SUFFIXES)
    texts = (Path(str(package.locate_file(path))).read_text(encoding="utf-8", errors="replace") for path in paths)
    return Licence(name, package.version, expression, any(map(_TITLE.search, texts)))


def _spdx(texts: Iterable[str]) -> str:
    """The first of these texts that is a name of a licence, as SPDX writes it."""
    for text in texts:
        expression = _SPDX.get(text.lower(), text)
        if is_compatible(expression) or re.fullmatch(r"[\w.+-]+-[\w.+-]+", expression):
            return expression
    return ""


def run_time_licences(pyproject: Path) -> dict[str, tuple[Licence, list[str]]]:
    """Package -> its licence and the extras that bring it ("core" for the core), for all that a user can install.

    Raises:
        PackageNotFoundError: When one is not installed here.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    core = closure(project["dependencies"], extras, is_complete=True)
    licences = {name: (licence_of(name, package), ["core"]) for name, package in core.items()}
    for extra in (extra for extra in extras if extra not in ("all", "dev", "docs")):
        for name, package in closure(extras[extra], extras, is_complete=True).items():
            if name not in core:
                licences.setdefault(name, (licence_of(name, package), []))[1].append(f"[{extra}]")
    return dict(sorted(licences.items()))


def page(licences: dict[str, tuple[Licence, list[str]]]) -> str:
    """docs/licences.md."""
    rows = [
        f"| {licence.name} | {licence.version} | {licence.expression or 'unknown'} | {', '.join(extras)} |"
        for licence, extras in licences.values()
    ]
    notes = [f"- **{name}**: {note}" for name, note in GPL_PARTS.items() if name in licences]
    return "\n".join(
        (
            _HEAD.format(count=len(rows)),
            *notes,
            "",
            "| package | version | licence | brought by |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


def main(arguments: Sequence[str]) -> int:
    """Write the page; 1 where a package cannot pass."""
    try:
        licences = run_time_licences(_ROOT / "pyproject.toml")
    except PackageNotFoundError as error:
        print(f"{error.name}: not installed here, so that its licence is not known; install ecg-vlm[all]")
        return 1
    out = Path(arguments[0]) if arguments else _ROOT / "docs" / "licences.md"
    out.write_text(page(licences), encoding="utf-8")
    problems = [
        f"{licence.name} {licence.version}: {licence.problem}" for licence, _ in licences.values() if licence.problem
    ]
    print("\n".join(problems) or f"{len(licences)} packages, each under a compatible licence: {out}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
