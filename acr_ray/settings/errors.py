"""The one exception that means "the user can mend this"."""

from __future__ import annotations

MOST = 4000  # characters of a line; what a file holds may be in it


class UserError(Exception):
    """Bad input: jobs print its text as one line and exit with code 2.

    The text names the option or file, the value that was found, and what is allowed.
    """

    def __init__(self, text: str) -> None:
        line = " ".join(str(text).split())
        super().__init__(line if len(line) <= MOST else f"{line[: MOST - 500]} … {line[-490:]}")
