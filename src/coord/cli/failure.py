"""How a command fails: what it prints, and with which status it exits."""

from __future__ import annotations

from typing import Final

EXIT_ERROR: Final = 1
"""The request failed, or a flag is wrong."""
EXIT_CONNECTION: Final = 2
"""A lease command could not be served."""
EXIT_INPUT: Final = 3
"""What was read from standard input is wrong."""
EXIT_FEATURE: Final = 4
"""A flag has a value that does not exist, or that this command cannot do."""
EXIT_INTERRUPTED: Final = 5
"""The node ended a watch."""
EXIT_ARGUMENTS: Final = 128
"""The arguments are wrong."""


class CommandError(Exception):
    """Ends the command: `Error: text` and `hint` go to stderr, `status` is the exit status.

    An empty `text` prints nothing, for what has been told already.
    """

    def __init__(self, text: str, *, status: int = EXIT_ERROR, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.hint = hint


def bad_arguments(text: str, hint: str = "") -> CommandError:
    """Return the failure of a command line whose arguments are wrong."""
    return CommandError(text, status=EXIT_ARGUMENTS, hint=hint)
