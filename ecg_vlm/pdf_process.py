"""Draws pages of a PDF: `python -m ecg_vlm.pdf_process DPI MOST_PIXELS MOST_PAGES FIRST`, the PDF on standard input.

Writes for each page "PAGES WIDTH HEIGHT", a line break, and the pixels, 3 bytes each. What is wrong with the PDF goes
to standard error, with exit code 3. A process of its own, since a PDF of 2,000 bytes can keep the library busy for
days, fill the memory, or end the process: `ecg_vlm.documents` ends this one in time, and where that was killed, the
system does.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import Any

SECONDS = 30  # a page of a scan takes less than one
MOST_MEMORY = 4 << 30  # bytes of address space, where the system can limit it
UNREADABLE = 3  # exit code
NO_PAGE = "there is no page"  # how the message begins
_POINTS_PER_INCH = 72


def draw_pages(dpi: float, most_pixels: int, most_pages: int, first: int) -> int:
    """Draw the pages from `first` on at `dpi`, or at as many as `most_pixels` allow. Returns the exit code."""
    import pypdfium2

    _limit("RLIMIT_AS", MOST_MEMORY)
    try:
        _limit("RLIMIT_CPU", math.ceil(time.process_time()) + SECONDS)
        document = pypdfium2.PdfDocument(sys.stdin.buffer.read())
        count = min(len(document), most_pages)
        if not count:
            raise ValueError("it has no page")
        if first > count:
            raise ValueError(f"{NO_PAGE} {first} of {count}")
        for number in range(first - 1, count):
            _limit("RLIMIT_CPU", math.ceil(time.process_time()) + SECONDS)
            _write_page(document[number], count, dpi, most_pixels)
    except (pypdfium2.PdfiumError, ValueError, MemoryError) as error:
        print(error or type(error).__name__, file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:  # the other side has read what it needs
        pass
    return 0


def _limit(name: str, value: int) -> None:
    """Let the system limit what this process takes, where it can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _write_page(page: Any, count: int, dpi: float, most_pixels: int) -> None:
    width, height = page.get_size()
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise ValueError(f"a page measures {width:g} x {height:g} points")
    scale = min(dpi / _POINTS_PER_INCH, math.sqrt(most_pixels / (width * height)))
    image = page.render(scale=scale).to_pil().convert("RGB")
    sys.stdout.buffer.write(b"%d %d %d\n" % (count, *image.size) + image.tobytes())
    sys.stdout.buffer.flush()
    page.close()


if __name__ == "__main__":
    sys.exit(draw_pages(float(sys.argv[1]), *map(int, sys.argv[2:5])))
