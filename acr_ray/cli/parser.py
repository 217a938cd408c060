"""Command lines: options that may stand anywhere, in groups, with their ranges, and hints for misspelt ones."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from acr_ray.settings.base import Settings, field_of, parse, range_text, type_text
from acr_ray.settings.datasets import ALLOWED, check_dataset
from acr_ray.settings.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse with options before, between and after arguments, and complaints of one line.

    Options cannot be shortened: ``--over`` must not become ``--overwrite``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_args(  # type: ignore[override]  # argparse has an overload for each kind of namespace
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Read a command line. Raises UserError naming what is wrong with it."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{self._hint(message)} (see {self.prog} --help)")

    def _hint(self, message: str) -> str:
        """The options that a misspelt one may stand for."""
        words = message.removeprefix("unrecognized arguments: ").split() if "unrecognized" in message else []
        wrong = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        near = difflib.get_close_matches(wrong, self._option_string_actions, n=2, cutoff=0.7) if wrong else []
        return f"; did you mean {' or '.join(near)}?" if near else ""

    def first_argument(self, argv: Sequence[str]) -> str | None:
        """Find the first word that is neither an option nor the value of one, wherever it stands.

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
        groups: Callable[[str], str] = lambda dotted: "settings",
    ) -> None:
        """Add an option for each settings field.

        Args:
            names: dotted fields to option names without dashes.
            defaults: what the help shows, by dotted field; None if a field is absent.
            flags: fields whose option takes no value: named is true.
            groups: the title in the help under which a field's option stands.
        """
        titles: dict[str | None, argparse._ArgumentGroup] = {group.title: group for group in self._action_groups}
        for dotted, option in names.items():
            info = field_of(settings, dotted)
            default = defaults.get(dotted)
            allowed = f"{type_text(info)} {range_text(info)}".strip()
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{info.description} [{allowed}; default: {'none' if shown is None else shown}]"
            kind: dict[str, Any] = (
                {"action": "store_const", "const": "true"} if dotted in flags else {"metavar": "VALUE"}
            )
            title = groups(dotted)
            group = titles.get(title) or titles.setdefault(title, self.add_argument_group(title))
            group.add_argument(f"--{option}", dest=f"settings:{dotted}", help=text.replace("%", "%%"), **kind)


def given(settings: Settings | type[Settings], options: argparse.Namespace) -> dict[str, Any]:
    """Collect the settings fields that the user gave, as values for pydantic, by dotted name."""
    values = {}
    for dest, text in vars(options).items():
        if dest.startswith("settings:") and text is not None:
            dotted = dest.removeprefix("settings:")
            values[dotted] = parse(field_of(settings, dotted), text)
    return values


def whole(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """Make an argparse type: a whole number in [low, high]."""

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


def dataset_name(text: str) -> str:
    """An argparse type: the name of a data set."""
    try:
        return check_dataset(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}; allowed: {ALLOWED}") from None


def number(low: float, high: float = 1e12, *, below: float | None = None) -> Callable[[str], float]:
    """Make an argparse type: a finite number in [low, high], or in [low, below) if that is given."""

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
