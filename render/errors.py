"""The two errors that a person is to act on. Anything else that is raised is a fault of the program."""

from __future__ import annotations

import errno
import os
import re


class InputError(ValueError):
    """The user's input is wrong. The message is one line: file, field, value and the mend.

    The command line prints it and exits with code 2; it never becomes a traceback. Of a long line, as of a file whose
    only cell is the whole of it, the middle is left out.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(str(message).split())
        super().__init__(line if len(line) <= 2000 else f"{line[:1500]} ... {line[-400:]}")


class WorkFailed(RuntimeError):  # noqa: N818  # a full disk or a lost worker is no error of the program
    """The input was right, and the work could not be done. The message is one line: what happened and how to go on.

    The command line prints it and exits with code 1.
    """


def is_memory_full(error: BaseException) -> bool:
    """Whether an error says that main memory or the GPU's is full, also for a thread or a library to be loaded. torch's
    on a CPU is a plain RuntimeError."""
    texts = (
        "not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED",
        "can't start new thread", "Failed to launch worker thread", "failed to map segment",
    )  # fmt: skip
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_failure(error: BaseException) -> str:
    """What the system says of a full disk, and of any that failed in code that wraps it; "" of any other error."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return os.strerror(error.errno)
    if wrapped := re.search(r"(?:I/O error: )?([^:]+) \(os error \d+\)", str(error)):  # outside of Python
        return wrapped[1]
    numbers = map(int, re.findall(r"\[Errno (\d+)\]", str(error)))  # shutil.copytree lists all of a folder
    return next((os.strerror(number) for number in numbers if number in _FULL), "")


def is_text(name: str) -> bool:
    """Whether the name of a file can be written as UTF-8; a name of other bytes has halves of characters in it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
