"""Stopping rules on the p_A's of real certificates: draws saved, points lost, and what information allows at best.

No network runs. Each image is a probability p of its selected class; selection and estimation draws are simulated
from it, a rule stops them, and the same draws carried on to N are what fixed N would have certified.

Where the p's come from:

- certificates of ours: ``count_top / n``.
- files of the field: the count whose certified radius is the stored one, over N. The radius belongs to the predicted
  class, so this holds for rows that are wrong, too.
- abstentions there say only that the count certified nothing. They are taken to mirror the certified images nearest
  to 1/2: the k-th of them has p = 1 - (the k-th least certified p). Which class they selected is unknown; they count
  as right, so that stopping when wrong is not credited for them.
- no source given: a synthetic mixture of Beta distributions, said as such; see `synthetic`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from acr_ray.reporting import Source, open_sources
from acr_ray.reporting.counts import counts_from_radius
from acr_ray.reporting.report import default_radii
from acr_ray.settings import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.smoothing.rules import Rule
from acr_ray.smoothing.stopping import claim_at, rule_for
from jobs.benchmarks.figures import figure
from jobs.benchmarks.simulate_distribution import as_json as bands_as_json
from jobs.benchmarks.simulate_distribution import measure_bands
from jobs.benchmarks.simulate_distribution import table as band_table

N0 = 100
WHEN_WRONG = "+stop-when-wrong"
COARSE = 0.01  # input units; at sigma = 0.25 a tolerance that saves half of all draws and costs 1.7 % of ACR


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulate", action="store_true", help="simulate stopping rules instead of timing the engine")
    parser.add_argument(
        "--sources",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="with --simulate: certificates to take p_A's from, as for jobs.report [default: a synthetic mixture]",
    )


@dataclass(frozen=True)
class Population:
    """Images as probabilities.

    Attributes:
        p: of the selected class, (M,), in [0, 1].
        wrong: whether the selected class is known not to be the label, bool (M,).
        radii: the grid, ascending.
    """

    name: str
    p: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    sigma: float
    n: int
    alpha: float
    radii: tuple[float, ...]

    def settings(self, **given: object) -> CertifySettings:
        return CertifySettings(sigma=self.sigma, n=self.n, n0=N0, alpha=self.alpha, dataset="cifar10", **given)


@dataclass
class Measured:
    """One rule on one population; each list has one entry a repetition."""

    bound: float
    saved: list[float] = field(default_factory=list)  # N / mean evaluations, selection draws included
    lost: list[float] = field(default_factory=list)  # largest loss of certified accuracy at the rule's radii, points
    acr_lost: list[float] = field(default_factory=list)  # per cent of fixed N's ACR


def run(options: argparse.Namespace) -> dict[str, object]:
    """Simulates all rules, prints the table, and returns the fields of the benchmark's JSON object."""
    sources = open_sources(options.sources) if options.sources else []
    populations = [population(source) for source in sources] or [synthetic()]
    found = {each.name: measure(each, 3 if options.quick else 20) for each in populations}
    print(_table(populations, found))
    bands = {
        each.name: measure_bands(
            np.where(each.wrong, 1 - each.p, each.p), each.n, each.alpha, 1 if options.quick else 3
        )
        for each in populations
    }
    print(band_table(bands))
    return {
        "distribution": bands_as_json(bands),
        "evaluations_saved": _by_rule(found, lambda m: figure(m.saved)),
        "points_lost": _by_rule(found, lambda m: figure(m.lost)),
        "acr_lost_percent": _by_rule(found, lambda m: figure(m.acr_lost) if m.acr_lost else None),
        "bound": _by_rule(found, lambda m: figure([m.bound])),
    }


def population(source: Source) -> Population:
    """The images of a source; see the module for how.

    Raises:
        UserError: the source has no images (an ECDF), or its radii are lower ends, from which p can't be read back.
    """
    rows = source.rows
    if rows is None:
        raise UserError(f"{source.where}: a curve without images cannot be simulated")
    certified = rows.predicted >= 0
    if rows.count_top is not None:
        p, wrong = rows.count_top / rows.draws, rows.selected != rows.label
    else:
        p, wrong = np.zeros(rows.idx.size), certified & ~rows.correct
        p[certified] = counts_from_radius(rows.radius[certified], source.sigma, source.n, source.alpha) / source.n
        p[~certified] = 1 - np.resize(np.sort(p[certified]), (~certified).sum()) if certified.any() else 0.5
    return Population(source.name, p, wrong, source.sigma, source.n, source.alpha, default_radii([source]))


def synthetic(images: int = 10_000) -> Population:
    """A made-up population, for machines without certificates: 40 % Beta(60, 0.3), 40 % Beta(6, 1.2) and 20 %
    Beta(5, 5), a fifth of the last two wrong; sigma 0.25, N = 100 000, alpha = 0.001. It resembles CIFAR-10 at that
    noise in shape only."""
    rng = np.random.default_rng(20)
    kind = np.repeat([0, 1, 2], np.array([4, 4, 2]) * images // 10)
    p = rng.beta(np.array([60, 6, 5])[kind], np.array([0.3, 1.2, 5])[kind])
    wrong = (kind > 0) & (rng.random(kind.size) < 0.2)
    return Population("synthetic: Beta mixture", p, wrong, 0.25, 100_000, 0.001, (0.0, 0.25, 0.5, 0.75))


def measure(images: Population, repetitions: int) -> dict[str, Measured]:
    """Every rule on one population, with and without stopping when wrong."""
    one = 2 * images.sigma  # one radius alone: 0.5 at sigma = 0.25
    one = min(images.radii, key=lambda r: abs(r - one))
    rules: dict[str, tuple[Rule, tuple[float, ...], float]] = {}
    for name, grid in (("radii", images.radii), (f"radii:{one:g}", (one,))):
        rule = rule_for(images.settings(stopping="radii", radii=grid))
        rules[name] = (rule, grid, 0.0)
    for name, tolerance in (("width", None), (f"width:{COARSE:g}", COARSE)):
        settings = images.settings(stopping="width", tolerance=tolerance)
        rules[name] = (rule_for(settings), images.radii, settings.radius_tolerance)
    found = {}
    for name, (rule, grid, tolerance) in rules.items():
        needed = draws_for_width(images, tolerance) if tolerance else draws_for_radii(images, grid)
        found[name] = Measured(images.n / needed.mean())
        found[name + WHEN_WRONG] = Measured(images.n / np.where(images.wrong, 0, needed).mean())
        for repetition in range(repetitions):
            _repeat(images, rule, grid, bool(tolerance), np.random.default_rng(repetition), found, name)
    return found


def _repeat(
    images: Population,
    rule: Rule,
    grid: tuple[float, ...],
    whole_radius: bool,
    rng: np.random.Generator,
    found: dict[str, Measured],
    name: str,
) -> None:
    used, held, fixed = simulate(rule, images.p, images.alpha, rng)
    right = ~images.wrong
    fixed_radius, held_radius = (np.where(right, radius(bound, images.sigma), 0.0) for bound in (fixed, held))
    shares = [[((r > 0) & (r >= at)).mean() for at in grid] for r in (fixed_radius, held_radius)]
    for suffix, draws in (("", used), (WHEN_WRONG, np.where(right, used, N0))):
        found[name + suffix].saved.append(float(images.n / draws.mean()))
        found[name + suffix].lost.append(float(100 * np.max(np.subtract(*shares))))
        if whole_radius:
            found[name + suffix].acr_lost.append(float(100 * (1 - held_radius.mean() / fixed_radius.mean())))


def simulate(
    rule: Rule, p: NDArray[np.float64], alpha: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """One run over all images.

    Args:
        p: probabilities of the selected classes, (M,).

    Returns:
        evaluations, selection draws included, int64 (M,); the rule's ``p_lower``, and that of all n draws at once
        (Clopper-Pearson, on the same draws), float64 (M,).
    """
    counts0 = rng.binomial(N0, p)
    paths = np.cumsum(rng.binomial(np.diff(rule.looks, prepend=0), p[:, None]), axis=1)
    stops, claims = rule.judge_all(paths, N0, counts0)
    last = stops.argmax(axis=1)
    fixed = lower_bound(paths[:, -1], rule.looks[-1], alpha)
    return N0 + np.array(rule.looks)[last], claims[np.arange(p.size), last], fixed


def draws_for_radii(images: Population, grid: tuple[float, ...]) -> NDArray[np.float64]:
    """Information bound: draws to certify the largest radius below each p, ``log(1/alpha) / kl(p, Phi(r / sigma))``.

    No test of level alpha that succeeds surely needs fewer on average (Wald 1945, Ann. Math. Stat. 16; kl of
    Bernoulli distributions). At most N; none where no radius lies below p. It counts neither selection draws nor
    those that giving up the next radius takes; on the other hand it is for claims that are never given up, so a rule
    that gives up what fixed N could hardly certify may come below it.
    """
    thresholds = np.array([claim_at(r, images.sigma) for r in grid])
    below = np.searchsorted(thresholds, images.p, side="left") - 1
    q = thresholds[np.maximum(below, 0)]
    kl = special.rel_entr(images.p, q) + special.rel_entr(1 - images.p, 1 - q)
    with np.errstate(divide="ignore"):
        return np.where(below < 0, 0.0, np.minimum(np.log(1 / images.alpha) / kl, images.n))


def draws_for_width(images: Population, tolerance: float) -> NDArray[np.float64]:
    """What knowing p would allow: the fewest draws whose single bound at the whole of alpha lies within the
    tolerance of that of N draws, each with its expected count; 1/2 or less needs none."""
    p, back = np.unique(images.p, return_inverse=True)

    def held(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        return radius(lower_bound(np.floor(p * draws + 1e-9), draws, images.alpha), images.sigma)

    most = np.full(p.size, images.n)
    whole, low, high = held(most), np.zeros_like(most), most
    while np.any(high - low > np.maximum(1, high // 1000)):  # the gain falls with the draws, but for whole counts
        middle = np.maximum((low + high) // 2, 1)
        met = whole - held(middle) <= tolerance
        low, high = np.where(met, low, middle), np.where(met, middle, high)
    return np.where(whole > 0, high, 0.0)[back]


def _by_rule(
    found: dict[str, dict[str, Measured]], shown: Callable[[Measured], dict | None]
) -> dict[str, dict[str, dict]]:
    return {
        name: {rule: value for rule, measured in rules.items() if (value := shown(measured)) is not None}
        for name, rules in found.items()
    }


def _table(populations: list[Population], found: dict[str, dict[str, Measured]]) -> str:
    lines = []
    for each in populations:
        radii = ", ".join(f"{r:g}" for r in each.radii)
        lines.append(
            f"{each.name}: {each.p.size} images, sigma {each.sigma:g}, N = {each.n}, alpha = {each.alpha:g},"
            f" radii {radii}"
        )
        lines.append(
            f"  {'rule':30}{'mean evaluations':>18}{'saved':>9}{'points lost':>13}{'ACR lost':>10}{'bound':>9}"
        )
        for rule, m in found[each.name].items():
            saved, acr = np.median(m.saved), f"{np.median(m.acr_lost):.2f} %" if m.acr_lost else "-"
            lines.append(
                f"  {rule:30}{each.n / saved:18.0f}{saved:8.2f}x{np.median(m.lost):13.3f}{acr:>10}{m.bound:8.1f}x"
            )
    lines.append(
        "saved: N / mean evaluations, n0 included. points lost: largest fall of certified accuracy at its radii."
    )
    lines.append("bound: information bound (radii), or p_A known beforehand (width); neither counts n0.")
    return "\n".join(lines)
