"""The search space: which fields of a recipe may take which values. Pure functions, no Ray."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from acr_ray.settings import Recipe, UserError, derive_seed
from acr_ray.settings.base import field_of, is_number, is_whole
from acr_ray.settings.recipe import PATHS, absolute_path

Point = dict[str, Any]  # a value for each field of the space, by dotted name

FIXED = ("name", "data.")  # what a trial may not change: another data set's ACR cannot be compared
PARTS = {  # fields that act only if one of these parts of the recipe is switched on
    "training.e_t": ("attack", "discard", "reweigh"),
    "discard": ("discard",),
    "reweigh": ("reweigh",),
    "attack": ("attack",),
}
MOST_CHECKED = 10_000  # whole numbers of a range that are checked one by one
GRID_OF_RANGE = 3  # values that a grid takes of a range


@dataclass(frozen=True)
class Domain:
    """What one field may be: a list, or every number from ``low`` to ``high``, both included.

    Attributes:
        field: dotted name.
        values: the list, in the order given; empty for a range.
        log: of a range: equally likely in every octave.
        whole: of a range: whole numbers only.
    """

    field: str
    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False

    def contains(self, value: Any) -> bool:
        if self.values:
            return value in self.values
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def at(self, u: float) -> Any:
        """Return the value at ``u`` in [0, 1): equal stretches for the values of a list, or along the range."""
        if self.values:
            return self.values[int(u * len(self.values))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return int(low + math.floor(u * (high - low + 1)))
        value = low + u * (high - low)
        value = math.exp(value) if self.log else value
        if self.whole:
            return round(value)
        # Six digits are enough for a hyperparameter and can be read; rounding must not leave the range.
        return min(max(float(f"{value:.6g}"), self.low), self.high)

    def grid(self) -> tuple[Any, ...]:
        """Return the list; of a range its ends and what lies between, `GRID_OF_RANGE` values or fewer."""
        if self.values:
            return self.values
        last = GRID_OF_RANGE - 1
        values = [*(self.at(k / last) for k in range(last)), self.high]
        return tuple(dict.fromkeys(int(value) if self.whole else value for value in values))

    def extremes(self) -> tuple[Any, ...]:
        """Values among which those lie that other fields could clash with."""
        if not self.values:
            return tuple(dict.fromkeys((self._typed(self.low), self._typed(self.high))))
        numbers = [v for v in self.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.values) > 2 else self.values

    def every(self) -> tuple[Any, ...]:
        """Return all values if they can be listed, else the ends."""
        if self.values:
            return self.values
        if self.whole and self.high - self.low < MOST_CHECKED:
            return tuple(range(int(self.low), int(self.high) + 1))
        return self.extremes()

    def _typed(self, value: float) -> Any:
        return int(value) if self.whole else value

    def text(self) -> str:
        """As it is written on the command line."""
        if self.values:
            return ",".join(map(str, self.values))
        return f"{'log:' if self.log else ''}{self._typed(self.low)}..{self._typed(self.high)}"


@dataclass(frozen=True)
class Space:
    """Domains by field, in the order given; see `parse_space` and `default_space`."""

    domains: tuple[Domain, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(domain.field for domain in self.domains)

    def text(self) -> dict[str, str]:
        return {domain.field: domain.text() for domain in self.domains}

    def recipes_naming(self, recipe: Recipe) -> list[Recipe]:
        """Return a recipe for each value of the space that is a path or a method's name."""
        values = [(d.field, value) for d in self.domains if d.field in (*PATHS, "method.name") for value in d.values]
        return [recipe.change({field: value}, recipe.name) for field, value in values]

    def own_point(self, recipe: Recipe) -> Point | None:
        """Return the recipe's own values, for the paper's recipes its tuned ones; None if they lie outside."""
        values = recipe.flat()
        point = {domain.field: values[domain.field] for domain in self.domains}
        return point if all(domain.contains(point[domain.field]) for domain in self.domains) else None

    def forks(self, recipe: Recipe) -> tuple[int, ...]:
        """Return the values of E_t that trials fork at, ascending; of a range the two ends."""
        domain = self._domain("training.e_t")
        values = (recipe.training.e_t,) if domain is None else domain.values or (domain.low, domain.high)
        return tuple(sorted({int(value) for value in values}))

    def epochs(self, recipe: Recipe) -> int:
        """Return the fewest epochs of a trial."""
        domain = self._domain("training.epochs")
        return recipe.training.epochs if domain is None else int(min(domain.values or (domain.low,)))

    def _domain(self, field: str) -> Domain | None:
        return next((domain for domain in self.domains if domain.field == field), None)


def parse_space(texts: Sequence[str], recipe: Recipe) -> Space:
    """``FIELD=a,b,c``, ``FIELD=low..high`` or ``FIELD=log:low..high``, each field once.

    Raises:
        UserError: an unknown field, a value that the recipe does not allow (alone or with others of the space), an
            empty list or range; names the field.
    """
    domains: dict[str, Domain] = {}
    for text in texts:
        field, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not field:
            raise UserError(f"--space {text}: not FIELD=a,b,c or FIELD=low..high")
        if field in domains:
            raise UserError(f"--space {field}: given twice; put all its values into one")
        if field not in recipe.flat():
            raise UserError(f"--space {field}: unknown field; fields: {', '.join(_searchable(recipe))}")
        if field.startswith(FIXED):
            raise UserError(f"--space {field}: is the same for all trials of a search")
        domains[field] = _domain(field, values, recipe)
    space = Space(tuple(domains.values()))
    check_space(space, recipe)
    return space


def default_space(recipe: Recipe) -> Space:
    """What the paper tunes, around the recipe's own values: m, E_t, p_t, T and ε, those whose part is switched on.

    m: half, the same, twice; E_t: two steps of a fifteenth of the epochs either way (not if the recipe begins at
    epoch 0: its samples are chosen before any training); p_t: within 0.2; T: 1 to 2T; ε: within a factor of 2.

    Raises:
        UserError: nothing to search.
    """
    t, domains = recipe.training, []
    copies = [m for m in (t.m // 2, t.m, 2 * t.m) if m >= 1 and t.batch_size % m == 0]
    domains.append(Domain("training.m", tuple(dict.fromkeys(copies))))
    if recipe.changes_at_e_t and t.e_t > 0:
        step = max(1, t.epochs // 15)
        forks = [e for k in range(-2, 3) if 1 <= (e := t.e_t + k * step) < t.epochs]
        domains.append(Domain("training.e_t", tuple(forks)))
    if recipe.discard.enabled:
        p_t = recipe.discard.p_t
        domains.append(Domain("discard.p_t", low=round(max(0.0, p_t - 0.2), 6), high=round(min(1.0, p_t + 0.2), 6)))
    if recipe.attack.enabled:
        domains.append(Domain("attack.steps", low=1, high=2 * recipe.attack.steps, whole=True))
        epsilon = recipe.attack.epsilon
        domains.append(Domain("attack.epsilon", low=epsilon / 2, high=2 * epsilon, log=True))
    space = Space(tuple(domain for domain in domains if len(domain.every()) > 1))
    if not space.domains:
        raise UserError(f"{recipe.name}: nothing to search by default; give --space FIELD=…")
    check_space(space, recipe)
    return space


def check_space(space: Space, recipe: Recipe) -> None:
    """Raise UserError if a point of the space is no recipe: each value alone, then the extremes together."""
    for domain in space.domains:
        parts = PARTS.get(domain.field) or PARTS.get(domain.field.partition(".")[0], ())
        acts = any(f"{part}.enabled" in space.fields or getattr(recipe, part).enabled for part in parts)
        if parts and not acts and domain.field != f"{parts[0]}.enabled":
            raise UserError(
                f"--space {domain.field}: changes nothing in {recipe.name}; switch its part on first, "
                f"e.g. --{parts[0]}.enabled true"
            )
        for value in domain.every():
            _allowed(recipe, {domain.field: value}, space, domain.field)
    corners = itertools.product(*(domain.extremes() for domain in space.domains))
    for corner in itertools.islice(corners, MOST_CHECKED):
        _allowed(recipe, dict(zip(space.fields, corner, strict=True)), space, ", ".join(space.fields))


def _allowed(recipe: Recipe, point: Point, space: Space, named: str) -> None:
    try:
        recipe.change(point, recipe.name)
    except UserError as error:
        # Two fields may only fit together: m and the batch size, E_t and the epochs. Alone, the space decides.
        others = [f for f in ("training.epochs", "training.batch_size") if f in space.fields and f not in point]
        if not others:
            raise UserError(f"--space {named}: {error}") from None


def grid_points(space: Space) -> list[Point]:
    """Return every combination, the last field changing fastest."""
    combinations = itertools.product(*(domain.grid() for domain in space.domains))
    return [dict(zip(space.fields, values, strict=True)) for values in combinations]


def trial_list(space: Space, recipe: Recipe, search: str, trials: int, seed: int) -> list[Point]:
    """Return the points of a search that decides them beforehand, a function of its arguments alone.

    The recipe's own point comes first if it lies in the space. ``grid``: the grid in an order drawn by the seed,
    for neighbours in a grid share a trunk and would wait for it, and ASHA compares early trials with early ones; the
    first ``trials`` of them. The grid of a range may pass the recipe's own point by, which then is one more.
    ``random``: drawn by the seed, none twice as long as there are others.
    """
    own = space.own_point(recipe)
    points = [own] if own else []
    if search == "grid":
        grid = grid_points(space)
        keys = [derive_seed(seed, "grid", number) for number in range(len(grid))]
        shuffled = [point for _, point in sorted(zip(keys, grid, strict=True), key=lambda pair: pair[0])]
        return (points + [point for point in shuffled if point != own])[:trials]
    attempt = 0
    while len(points) < trials:
        words = np.random.PCG64(derive_seed(seed, "random", attempt)).random_raw(len(space.domains))
        draws = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        point = {domain.field: domain.at(float(u)) for domain, u in zip(space.domains, draws, strict=True)}
        attempt += 1
        if point not in points or attempt > 100 * trials:
            points.append(point)
    return points[:trials]


def _domain(field: str, text: str, recipe: Recipe) -> Domain:
    log = text.startswith("log:")
    bare = text.removeprefix("log:")
    # A text, such as a path, may have dots in it and is no range.
    ends = re.fullmatch(r"(.+?)\.\.(.+)", bare) if is_number(field_of(recipe, field)) else None
    if ends is None:
        if log:
            raise UserError(f"--space {field}={text}: log: needs a range, log:low..high")
        values = tuple(dict.fromkeys(_value(recipe, field, part.strip()) for part in bare.split(",") if part.strip()))
        if field in PATHS:
            values = tuple(value if value is None else absolute_path(value) for value in values)
        if not values:
            raise UserError(f"--space {field}: empty; give values with commas between, or low..high")
        return Domain(field, values)
    whole = is_whole(field_of(recipe, field))
    try:
        low, high = (int(end) if whole else float(end) for end in ends.groups())
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise UserError(f"--space {field}={text}: the ends of a range must be {kind}") from None
    if not low < high:
        raise UserError(f"--space {field}={text}: empty range; allowed: low < high")
    if log and low <= 0:
        raise UserError(f"--space {field}={text}: a log range must begin above 0")
    for end in (low, high):
        _value(recipe, field, str(end))
    return Domain(field, low=low, high=high, log=log, whole=whole)


def _value(recipe: Recipe, field: str, text: str) -> Any:
    """Return a value as the recipe holds it. What only other fields forbid is `check_space`'s to say."""
    from acr_ray.settings.base import parse

    section, _, name = field.rpartition(".")
    owner: Any = recipe
    for part in section.split(".") if section else ():
        owner = getattr(owner, part)
    given = {name: parse(field_of(recipe, field), text)}
    return getattr(type(owner).build({**owner.model_dump(), **given}, f"--space {field}"), name)


def _searchable(recipe: Recipe) -> list[str]:
    return [field for field in recipe.flat() if not field.startswith(FIXED)]
