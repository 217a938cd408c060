"""All numbers of a report, computed once; tables, figures, page and ``summary.json`` only show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from acr_ray.reporting import metrics
from acr_ray.reporting.best import BestPerRadius, best_per_radius
from acr_ray.reporting.fairness import SETTINGS, Warnings, find_warnings, pair_all, stored_above_ceiling
from acr_ray.reporting.kinds import OrderTurned, order_turns
from acr_ray.reporting.pairing import Comparison, Pairing, common_budget, compare
from acr_ray.reporting.rows import Row, constant_row, row_of
from acr_ray.reporting.source import Source
from acr_ray.reporting.verdict import verdict
from acr_ray.settings.certify import MOST_RADII
from acr_ray.settings.errors import UserError


@dataclass(frozen=True)
class Report:
    """A comparison of sources; ``sources[0]`` is the baseline unless another was chosen.

    Attributes:
        rows: one a source, in the order given; ``constant`` is the constant classifier's, if wanted, and
            ``constant_share`` the share of images that it answers correctly.
        radii: where certified accuracy is reported, ascending.
        common_budget: the ``(n, alpha)`` at which ``common_acr`` holds; ``None`` if all sources agree.
        comparisons: each other source against the baseline of its sigma; what cannot be paired is absent.
        verdicts: plain language, one a comparison.
        turned: pairs whose order by ACR depends on the kind of certificate.
        best: the best source for each radius, if that was asked for; of many sources only those that it chooses are
            ``sources``.
    """

    sources: tuple[Source, ...]
    baseline: str
    radii: tuple[float, ...]
    rows: tuple[Row, ...]
    constant: Row | None
    constant_share: float | None
    common_budget: tuple[int, float] | None
    grouped_warnings: Warnings
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[str, ...]
    turned: tuple[OrderTurned, ...] = ()
    best: BestPerRadius | None = None

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows if self.constant is None else (*self.rows, self.constant)

    @property
    def warnings(self) -> list[str]:
        """Every warning once; those about one source begin with its name."""
        grouped = self.grouped_warnings
        own = [f"{s.name}: {text}" for s, mine in zip(self.sources, grouped.own, strict=True) for text in mine]
        return own + [text for text, _ in grouped.between]


MOST_COLUMNS = 24  # of radii that nobody asked for
MOST_SHOWN = 24  # sources of a choice for each radius that the rest of a report shows, too


def build_report(
    sources: Sequence[Source],
    radii: Sequence[float] | None = None,
    constant: bool = True,
    baseline: str | None = None,
    best: bool = False,
) -> Report:
    """Compute everything.

    Args:
        sources: at least one, names unique.
        radii: where to report certified accuracy, >= 0; ``None`` for `default_radii`.
        constant: whether to add the constant classifier, on the images and settings of the fullest source.
        baseline: the source that others are compared with; the first by default.
        best: whether to choose the best source for each radius. If there are more than `MOST_SHOWN` sources, all else
            is reported of those that it chooses, and of the baseline.

    Raises:
        UserError: no source, a negative radius, an unknown baseline, or, for ``best``, sources that do not share their
            images, alpha and kind of certificate.
    """
    if not sources:
        raise UserError("a report needs at least one source")
    names = [s.name for s in sources]
    base = 0 if baseline is None else _position(baseline, names)
    radii = tuple(sorted(set(radii))) if radii is not None else default_radii(sources)
    if not radii or not all(0 <= r < float("inf") for r in radii):
        given = ", ".join(f"{r:g}" for r in radii)
        raise UserError(f"--radii {given}: at least one radius, each finite and at least 0")
    chosen = best_per_radius(sources, radii) if best else None
    if chosen is not None and len(sources) > MOST_SHOWN:
        kept = [s for s in sources if s.name in chosen.winners or s.name == names[base]]
        chosen = replace(chosen, left_out=len(sources) - len(kept))
        sources, base = kept, [s.name for s in kept].index(names[base])
    common = common_budget(sources)
    pairings = pair_all(sources)
    warnings = find_warnings(sources, pairings)
    known = next((s.class_names for s in sources if s.class_names), ())
    rows = tuple(row_of(s, radii, common, warnings.of(k), known) for k, s in enumerate(sources))
    comparisons = _comparisons(sources, base, pairings)
    model = _fullest(sources) if constant else None
    always = None if model is None else metrics.constant_classifier(model)
    return Report(
        sources=tuple(sources),
        baseline=sources[base].name,
        radii=radii,
        rows=rows,
        constant=None if model is None or always is None else constant_row(always, model, radii, common),
        constant_share=None if always is None else always.share,
        common_budget=common,
        grouped_warnings=warnings,
        comparisons=comparisons,
        verdicts=tuple(verdict(c, _unfair(sources, c)) for c in comparisons),
        turned=order_turns(sources, pairings),
        best=chosen,
    )


def default_radii(sources: Sequence[Source]) -> tuple[float, ...]:
    """Return multiples of 0.25 below the largest radius that any source can certify, or of 0.5 if those are many.

    If a source asked for some radii only, it says nothing of others: then these. Of 1, 2.5, 5, 10, … if even
    those are more than `MOST_COLUMNS`: a table's width must not follow a file's numbers.
    """
    asked = sorted({r for s in sources for r in s.grid})
    if asked and len(asked) <= MOST_RADII:
        return tuple(asked)
    ceiling = max(s.ceiling for s in sources)
    steps = [0.25] if ceiling < 2.25 else []
    steps += [0.5, *(digit * 10.0**power for power in range(6) for digit in (1, 2.5, 5))]
    step = next(step for step in steps if ceiling / step < MOST_COLUMNS or step == steps[-1])
    return tuple(step * k for k in range(int(ceiling / step) + 1))


def _fullest(sources: Sequence[Source]) -> Source | None:
    """The first of the sources with the most images, complete ones before partial ones, all radii before some."""
    held = (s for s in sources if s.rows is not None)
    return min(held, key=lambda s: (bool(s.incomplete), -(s.images or 0), bool(s.grid)), default=None)


def _comparisons(
    sources: Sequence[Source], chosen: int, pairings: dict[tuple[int, int], Pairing]
) -> tuple[Comparison, ...]:
    """Return each source against the chosen baseline, or, at another sigma, against the first source there."""
    comparisons = []
    for k, other in enumerate(sources):
        at_sigma = [i for i, s in enumerate(sources) if s.sigma == other.sigma]
        base = chosen if chosen in at_sigma else at_sigma[0]
        pairing = pairings.get((min(base, k), max(base, k)))
        if k == base or pairing is None:
            continue
        compared = compare(sources[base], other, pairing if base < k else pairing.swapped())
        if compared is not None:
            comparisons.append(compared)
    return tuple(comparisons)


def _unfair(sources: Sequence[Source], c: Comparison) -> str:
    """Return why the pair cannot be compared as it stands; empty if it can."""
    a, b = (next(s for s in sources if s.name == name) for name in (c.baseline, c.name))
    differ = [shown for shown, field in SETTINGS if getattr(a, field) != getattr(b, field)]
    reasons = [f"{' and '.join(differ)} differ{'s' * (len(differ) == 1)}"] if differ else []
    reasons += [s.shown_name for s in (a, b) if s.incomplete]
    reasons += [f"{s.name} stores radii above its ceiling" for s in (a, b) if stored_above_ceiling(s)]
    return "; ".join(reasons)


def _position(name: str, names: list[str]) -> int:
    if name not in names:
        raise UserError(f"--baseline {name}: no such source; there are {', '.join(names)}")
    return names.index(name)
