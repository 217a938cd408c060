"""How a command ends: its exit code, and one clear line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from acr_ray.settings.errors import UserError


class CommandFailed(Exception):
    """The command ran and could not finish; its text says what to do next. Exit code 1."""


def run_command(main: Callable[[list[str]], object], argv: list[str] | None = None) -> NoReturn:
    """Call a command's ``main`` and leave the process with its exit code.

    Args:
        main: reads the command line and does the work.
        argv: the command line without the command's name; None: that of this process.

    The codes: 0 done, 1 failed, 2 bad input (both with one line on stderr), 130 or 143 stopped by a signal.
    """
    signals: list[int] = []

    def stop(number: int, frame: Any) -> NoReturn:
        # As an exception, so that what is open is closed on the way out; a second signal ends the process at once.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signals.append(number)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        _leave(f"error: {error}", 2)
    except CommandFailed as error:
        _leave(f"failed: {' '.join(str(error).split())}", 1)
    except KeyboardInterrupt:
        _leave("stopped; run the same command again to resume", 130)
    except SystemExit as error:
        # Ray turns an exit from within its calls into one with code 1.
        sys.exit(128 + signals[0] if signals else error.code)
    sys.exit(0)


def _leave(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    if os.environ.get("ACR_RAY_TRACEBACK"):
        raise
    sys.exit(code)
