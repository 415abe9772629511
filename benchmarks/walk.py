"""Which of our files a command goes through: `python benchmarks/walk.py evaluate nano --data PAGES --out REPORT`.

Everything after `walk.py` is a command line of `ecg-vlm`; it is run in this process and does its work. A step is a
function of the four packages that calls a function in another of our files; it counts once, however often it happens.
Printed are the files in the order in which they are entered, with the functions that other files call there, and:

- opened: files through which the way goes on, because they call others. A reader has to open them to follow it.
- tools: files that call no other of ours (`render/io.py`, `render/statements.py`); the name of a function is enough.
- returns: steps into a file that was entered before.
- climbs: returns into a file that waits further up on the call stack, such as a callback.

Not counted: what runs on import or for `--help` (`add_arguments`), tables that are only read, templates, and what goes
on inside a room with one door (`ROOMS`): its door is a tool.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

PACKAGES = ("ecg_vlm", "eval", "recipes", "render")
ROOMS = ("eval/parser/",)
"""Folders with one public function, which needs no other room."""

_NOT_COUNTED = frozenset({"__getattr__", "add_arguments"})
_ROOT = Path(__file__).resolve().parent.parent
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
        file = frame.f_code.co_filename
        if not stack or stack[0].co_filename == file:
            return
        caller, callee = _place(stack[0]), _place(frame.f_code)
        if any(caller[0].startswith(room) and callee[0].startswith(room) for room in ROOMS):
            return
        climb = any(code.co_filename == file for code in stack)
        self.steps[caller, callee] = self.steps.get((caller, callee), False) or climb

    @property
    def entries(self) -> dict[str, list[str]]:
        """File -> its functions that other files call; in order."""
        entries: dict[str, list[str]] = {}
        for (caller_file, _), (file, function) in self.steps:
            entries.setdefault(caller_file, [])
            functions = entries.setdefault(file, [])
            if function not in functions:
                functions.append(function)
        return entries

    @property
    def opened_files(self) -> set[str]:
        """Files that call others."""
        return {file for (file, _), _ in self.steps}

    @property
    def climbs(self) -> list[tuple[Place, Place]]:
        """Steps that go back up."""
        return [step for step, climb in self.steps.items() if climb]

    def lines(self) -> list[str]:
        """The walk in words."""
        entries, opened_files, climbs = self.entries, self.opened_files, self.climbs
        returns = len(self.steps) - len(entries) + 1
        return [
            *(f"{' ' if f in opened_files else '.'} {f:34} {', '.join(names)}" for f, names in entries.items()),
            f"{len(entries)} files: {len(opened_files)} opened, {len(entries) - len(opened_files)} tools (.); "
            f"{returns} returns, {len(climbs)} climbs",
            *(f"  {' '.join(caller)} -> {' '.join(callee)}" for caller, callee in climbs),
        ]


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
    """Whether this is a function of ours, and neither a module, a class body nor a template."""
    file = code.co_filename
    return (
        file.endswith(".py")
        and file.startswith(_PREFIXES)
        and code.co_name not in _NOT_COUNTED
        and bool(code.co_flags & inspect.CO_OPTIMIZED)
    )


def _callers(frame: FrameType) -> list[CodeType]:
    """Our functions on the call stack, innermost first; none while a module of ours is imported."""
    stack: list[CodeType] = []
    above = frame.f_back
    while above is not None:
        code = above.f_code
        if code.co_name == "<module>" and code.co_filename.startswith(_PREFIXES):
            return []
        if _is_function(code):
            stack.append(code)
        above = above.f_back
    return stack


def _place(code: CodeType) -> Place:
    return str(Path(code.co_filename).relative_to(_ROOT)), code.co_qualname.split(".<locals>")[0]


if __name__ == "__main__":
    sys.path.insert(0, str(_ROOT))
    status, way = walk(sys.argv[1:])
    print("\n".join(way.lines()), file=sys.stderr)
    sys.exit(status)
