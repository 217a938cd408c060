"""What every job does alike: read options, end with the right exit code and one clear line."""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from acr_ray.settings.base import Settings, field_of, parse, range_text, type_text
from acr_ray.settings.errors import UserError


class JobFailed(Exception):
    """The job ran and could not finish; its text says what to do next. Exit code 1."""


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line; ``--overwrite`` may not be shortened to something else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{self._meant(message)} (see {self.prog} --help)")

    def _meant(self, message: str) -> str:
        """The options that a misspelt one may stand for."""
        words = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        wrong = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
        near = difflib.get_close_matches(wrong, self._option_string_actions, n=2, cutoff=0.7) if wrong else []
        return f"; did you mean {' or '.join(near)}?" if near else ""

    def first_word(self, argv: Sequence[str]) -> str | None:
        """The first argument that is neither an option nor the value of one, wherever it stands.

        An option that the parser does not know is taken to have a value, as nearly all have.
        """
        takes_none = {name for action in self._actions if action.nargs == 0 for name in action.option_strings}
        words = iter(argv)
        for word in words:
            if not word.startswith("-"):
                return word
            if "=" not in word and word not in takes_none:
                next(words, None)
        return None

    def add_settings(
        self,
        settings: Settings | type[Settings],
        names: dict[str, str],
        defaults: dict[str, Any],
        flags: tuple[str, ...] = (),
    ) -> None:
        """An option for each settings field: ``names`` maps dotted fields to option names without dashes.

        The fields in ``flags`` take no value: named is true.
        """
        for dotted, option in names.items():
            info = field_of(settings, dotted)
            default = defaults.get(dotted)
            allowed = f"{type_text(info)} {range_text(info)}".strip()
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{info.description} [{allowed}; default: {'none' if shown is None else shown}]"
            kind = {"action": "store_const", "const": "true"} if dotted in flags else {"metavar": "VALUE"}
            self.add_argument(f"--{option}", dest=f"settings:{dotted}", help=text.replace("%", "%%"), **kind)


def given(settings: Settings | type[Settings], options: argparse.Namespace) -> dict[str, Any]:
    """The settings fields that the user gave, as values for pydantic, by dotted name."""
    found = {}
    for dest, text in vars(options).items():
        if dest.startswith("settings:") and text is not None:
            dotted = dest.removeprefix("settings:")
            found[dotted] = parse(field_of(settings, dotted), text)
    return found


def whole(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """An argparse type: a whole number in [low, high]."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            limit = f"a whole number >= {low}" if high == 2**63 - 1 else f"a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text}: must be {limit}")
        return value

    return convert


def number(low: float, high: float = 1e12, *, below: float | None = None) -> Callable[[str], float]:
    """An argparse type: a finite number in [low, high], or in [low, below) where that is given."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or (below is not None and value >= below):
            limit = f">= {low:g} and below {below:g}" if below else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text}: must be a number {limit}")
        return value

    return convert


def entry(run: Callable[[list[str]], None]) -> NoReturn:
    """Run a job's main and leave with 0, 2 (bad input, one line), 1 (failed) or 130/143 (stopped)."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        run(sys.argv[1:])
    except UserError as error:
        _leave(f"error: {error}", 2)
    except JobFailed as error:
        _leave(f"failed: {' '.join(str(error).split())}", 1)
    except KeyboardInterrupt:
        _leave("stopped; the same command goes on where it was", 130)
    except SystemExit as error:
        # Ray turns an exit from within its calls into one with code 1.
        sys.exit(128 + _signalled[0] if _signalled else error.code)
    sys.exit(0)


_signalled: list[int] = []


def _stop(number: int, frame: Any) -> NoReturn:
    # As an exception, so that what is open is closed on the way out; a second signal ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _signalled.append(number)
    raise SystemExit(128 + number)


def _leave(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    if os.environ.get("ACR_RAY_TRACEBACK"):
        raise
    sys.exit(code)
