"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: jobs print its text as one line and exit with code 2.

    The text names the option or file, the value that was found, and what is allowed.
    """

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(str(text).split()))
