"""The product a person touches: the command line, the Reader, batch evaluation.

from ecg_vlm import Reader, open_image

reader = Reader.load("nano")
reader.ask(open_image("page.png"), ["What is the rhythm?"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecg_vlm.images import open_image
    from ecg_vlm.reader import Reader

__all__ = ["Reader", "__version__", "open_image"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`Reader` and `open_image`, imported when they are asked for: they bring torch, which --help does without."""
    if name == "Reader":
        from ecg_vlm.reader import Reader

        return Reader
    if name == "open_image":
        from ecg_vlm.images import open_image

        return open_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
