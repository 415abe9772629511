"""The two errors that a person is to act on. Anything else that is raised is a fault of the program."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input is wrong. The message is one line: file, field, value and the mend.

    The command line prints it and exits with code 2; it never becomes a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class WorkFailed(RuntimeError):  # noqa: N818  # a full disk or a lost worker is no error of the program
    """The input was right, and the work could not be done. The message is one line: what happened and how to go on.

    The command line prints it and exits with code 1.
    """
