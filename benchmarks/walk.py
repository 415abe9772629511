"""Which of our files a command goes through: `python benchmarks/walk.py evaluate nano --data PAGES --out REPORT`.

Everything after `walk.py` is a command line of `ecg-vlm`; it is run in this process and does its work. Each function of
the four packages that calls a function in another of our files is one step of the walk, counted once however often it
happens. Printed are the files in the order in which they are entered, with the functions called from outside, and:

- files: how many of ours are entered at all;
- returns: steps into a file that was entered before;
- climbs: returns into a file that waits further up on the call stack (a callback, or a file whose parts lie apart).

Code that runs on import, and tables that are only read, do not count.
"""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

_ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ecg_vlm", "eval", "recipes", "render")
_PREFIXES = tuple(f"{_ROOT / package}/" for package in PACKAGES)

Place = tuple[str, str]
"""A file below the root, and a top-level function or a method in it."""


@dataclass
class Walk:
    """Steps from file to file in the order in which they first happen: (caller, callee) -> whether it is a climb."""

    steps: dict[tuple[Place, Place], bool] = field(default_factory=dict)

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`."""
        if event != "call" or not _is_function(frame.f_code):
            return
        stack = _callers(frame)
        if not stack or stack[0] == frame.f_code.co_filename:
            return
        caller, callee = _place(_caller_code(frame)), _place(frame.f_code)
        climb = frame.f_code.co_filename in stack
        self.steps[caller, callee] = self.steps.get((caller, callee), False) or climb

    @property
    def functions(self) -> dict[str, list[str]]:
        """File -> its functions that other files call; in order."""
        entries: defaultdict[str, list[str]] = defaultdict(list)
        for caller, (file, function) in self.steps:
            entries[caller[0]]  # the first file calls before it is called
            if function not in entries[file]:
                entries[file].append(function)
        return dict(entries)

    @property
    def climbs(self) -> list[tuple[Place, Place]]:
        """Steps that go back up."""
        return [step for step, climb in self.steps.items() if climb]

    def lines(self) -> list[str]:
        """The walk in words."""
        entries = self.functions
        listing = [f"{n:3}  {file:40} {', '.join(names)}" for n, (file, names) in enumerate(entries.items(), 1)]
        climbs = [f"     {' '.join(caller)} -> {' '.join(callee)}" for caller, callee in self.climbs]
        returns = len(self.steps) - len(entries) + 1
        return [*listing, f"{len(entries)} files, {returns} returns, {len(climbs)} climbs", *climbs]


def walk(argv: Sequence[str]) -> tuple[int, Walk]:
    """Run one command line of `ecg-vlm`; its exit code and the way it took."""
    from ecg_vlm.cli import main

    way = Walk()
    sys.setprofile(way.profile)
    try:
        code = main(argv)
    finally:
        sys.setprofile(None)
    return code, way


def _is_function(code: CodeType) -> bool:
    """Whether this is a function of ours, and neither a module nor a class body."""
    return code.co_filename.startswith(_PREFIXES) and bool(code.co_flags & inspect.CO_OPTIMIZED)


def _callers(frame: FrameType) -> list[str]:
    """Files of our functions on the call stack, innermost first; empty while a module of ours is imported."""
    files: list[str] = []
    above = frame.f_back
    while above is not None:
        code = above.f_code
        if code.co_name == "<module>" and code.co_filename.startswith(_PREFIXES):
            return []
        if _is_function(code):
            files.append(code.co_filename)
        above = above.f_back
    return files


def _caller_code(frame: FrameType) -> CodeType:
    above = frame.f_back
    while above is not None and not _is_function(above.f_code):
        above = above.f_back
    assert above is not None
    return above.f_code


def _place(code: CodeType) -> Place:
    return str(Path(code.co_filename).relative_to(_ROOT)), code.co_qualname.split(".<locals>")[0]


if __name__ == "__main__":
    sys.path.insert(0, str(_ROOT))
    status, way = walk(sys.argv[1:])
    print("\n".join(way.lines()), file=sys.stderr)
    sys.exit(status)
