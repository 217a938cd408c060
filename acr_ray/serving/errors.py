"""What a request is refused with: an HTTP status, and one line on what is allowed."""

from __future__ import annotations

MOST = 500  # characters; what a client sent may be in it


class Refused(Exception):
    """The request is not answered. Its text is for the client and holds nothing but what it sent.

    Attributes:
        status: of HTTP, 400 to 503.
        text: one line.
    """

    def __init__(self, status: int, text: str) -> None:
        line = " ".join(str(text).split())
        self.status, self.text = status, line if len(line) <= MOST else f"{line[:MOST]}…"
        super().__init__(self.text)
