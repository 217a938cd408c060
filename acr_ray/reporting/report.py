"""All numbers of a report, computed once; tables, figures, page and ``summary.json`` only show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.reporting import metrics
from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.fairness import SETTINGS, Warnings, find_warnings, pair_all, stored_above_ceiling
from acr_ray.reporting.intervals import mean_interval
from acr_ray.reporting.kinds import KindNumbers, OrderTurned, both_kinds, order_turns
from acr_ray.reporting.pairing import Comparison, Pairing, common_budget, compare
from acr_ray.reporting.source import Source
from acr_ray.reporting.verdict import verdict
from acr_ray.settings.certify import MOST_RADII
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.rules import ONE_CLASS_KIND

CONSTANT = "constant class"


@dataclass(frozen=True)
class Row:
    """One line of the comparison table; shares in [0, 1], radii in input units, nothing rounded.

    Attributes:
        name: the method; ``shown_name`` also says if a run is incomplete.
        acr_interval: 95 % bootstrap interval over images; ``None`` if the source has none.
        acr_is_lower: the ACR is a lower value: of a run that stopped early.
        acr_between: of a curve, whose ACR is an estimate, the least and the most that its points allow.
        common_acr: ACR at the report's common budget, derived from p_A; ``None`` if all budgets agree, and of
            sources that stopped early, of which none can be derived.
        lower_at: whether each certified accuracy is a lower value.
        abstained: share without a certified class; ``None`` if unknown.
        certificate: the kind of its certificates, ``one-class`` or ``two-class``.
        kinds: its numbers under each kind that its counts can say; empty if it holds no images.
    """

    name: str
    shown_name: str
    kind: str
    images: int | None
    sigma: float
    n: int
    alpha: float
    acr: float
    acr_interval: tuple[float, float] | None
    common_acr: float | None
    certified_accuracy: tuple[float, ...]
    hard_share: float
    abstained: float | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    acr_is_lower: bool = False
    lower_at: tuple[bool, ...] = ()
    acr_between: tuple[float, float] | None = None
    certificate: str = ONE_CLASS_KIND
    kinds: tuple[KindNumbers, ...] = ()


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


def build_report(
    sources: Sequence[Source], radii: Sequence[float] | None = None, constant: bool = True, baseline: str | None = None
) -> Report:
    """Compute everything.

    Args:
        sources: at least one, names unique.
        radii: where to report certified accuracy, >= 0; ``None`` for `default_radii`.
        constant: whether to add the constant classifier, on the images and settings of the fullest source.
        baseline: the source that others are compared with; the first by default.

    Raises:
        UserError: no source, a negative radius, an unknown baseline.
    """
    if not sources:
        raise UserError("a report needs at least one source")
    names = [s.name for s in sources]
    base = 0 if baseline is None else _position(baseline, names)
    radii = tuple(sorted(set(radii))) if radii is not None else default_radii(sources)
    if not radii or not all(0 <= r < float("inf") for r in radii):
        given = ", ".join(f"{r:g}" for r in radii)
        raise UserError(f"--radii {given}: at least one radius, each finite and at least 0")
    common = common_budget(sources)
    pairings = pair_all(sources)
    warnings = find_warnings(sources, pairings)
    rows = tuple(_row(s, radii, common, warnings.of(k)) for k, s in enumerate(sources))
    comparisons = _comparisons(sources, base, pairings)
    model = _fullest(sources) if constant else None
    always = None if model is None else metrics.constant_classifier(model)
    return Report(
        sources=tuple(sources),
        baseline=names[base],
        radii=radii,
        rows=rows,
        constant=None if model is None or always is None else _constant_row(always, model, radii, common),
        constant_share=None if always is None else always.share,
        common_budget=common,
        grouped_warnings=warnings,
        comparisons=comparisons,
        verdicts=tuple(verdict(c, _unfair(sources, c)) for c in comparisons),
        turned=order_turns(sources, pairings),
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


def _row(source: Source, radii: Sequence[float], common: tuple[int, float] | None, warnings: tuple[str, ...]) -> Row:
    held = source.rows
    return Row(
        name=source.name,
        shown_name=source.shown_name,
        kind=source.kind,
        images=source.images,
        sigma=source.sigma,
        n=source.n,
        alpha=source.alpha,
        acr=metrics.acr(source),
        acr_interval=None if held is None else mean_interval(held.counted_radius),
        common_acr=None if common is None or not source.derivable else _derived(source, common),
        certified_accuracy=tuple(metrics.certified_accuracy(source, radii)),
        hard_share=metrics.hard_share(source),
        abstained=metrics.abstained_share(source),
        warnings=warnings,
        notes=tuple(source.notes) + _known_only(source),
        acr_is_lower=source.acr_is_lower,
        lower_at=tuple(source.is_lower_at(r) for r in radii),
        acr_between=None if source.between is None else _between(source),
        certificate=source.certificate,
        kinds=both_kinds(source, radii),
    )


def _between(source: Source) -> tuple[float, float]:
    assert source.between is not None  # asked of a curve alone
    low, high = (at_budget(d, source.sigma, source.n, source.alpha).acr for d in source.between)
    return low, high


def _derived(source: Source, budget: tuple[int, float]) -> float:
    return at_budget(source.distribution, source.sigma, *budget).acr


def _known_only(source: Source) -> tuple[str, ...]:
    """Return what the source does not hold and the report therefore assumes or leaves open."""
    sentences = []
    if source.assumed:
        values = {"sigma": f"{source.sigma:g}", "n": str(source.n), "alpha": f"{source.alpha:g}"}
        listed = ", ".join(f"{'N' if o == 'n' else o} = {values[o]}" for o in source.assumed)
        sentences.append(f"the file does not say {listed}: taken from its name, or the field's usual value")
    if source.kind == "tsv":
        open_share = source.distribution.below(0.5)
        sentences.append(
            "p_A is recovered from the radii, known only where correct and certified; of"
            f" {open_share * 100:.1f} % of the images only that it is not certified above 0.5"
        )
    if source.kind == "ecdf":
        low, high = _between(source)
        sentences.append(
            "a curve without images: ACR and certified accuracy are estimates from it; its points allow an ACR from"
            f" {round_down(low, 4)} to {-float(round_down(-high, 4)):.4f}"
        )
    return tuple(sentences)


def _fullest(sources: Sequence[Source]) -> Source | None:
    """The first of the sources with the most images, complete ones before partial ones, all radii before some."""
    held = (s for s in sources if s.rows is not None)
    return min(held, key=lambda s: (bool(s.incomplete), -(s.images or 0), bool(s.grid)), default=None)


def _constant_row(
    constant: metrics.Constant, model: Source, radii: Sequence[float], common: tuple[int, float] | None
) -> Row:
    at_common = None
    if common is not None:
        at_common = metrics.Constant(constant.share, constant.sigma, *common, constant.images).acr
    suffix = model.shown_name.removeprefix(model.name)
    return Row(
        name=CONSTANT,
        shown_name=CONSTANT + suffix,
        kind="constant",
        images=constant.images,
        sigma=constant.sigma,
        n=constant.n,
        alpha=constant.alpha,
        acr=constant.acr,
        acr_interval=None,
        common_acr=at_common,
        certified_accuracy=tuple(constant.certified_accuracy(radii)),
        hard_share=constant.hard_share,
        abstained=0.0,
        notes=(f"computed from the labels of {model.name}: one class for every image, no model involved",),
        acr_is_lower=bool(constant.grid),
        lower_at=(False,) * len(radii),
    )


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
