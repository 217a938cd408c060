"""One line of the comparison table: a source's numbers, or those of the constant classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acr_ray.reporting import metrics
from acr_ray.reporting.budget import at_budget
from acr_ray.reporting.classes import ClassNumbers, by_class, worst_class
from acr_ray.reporting.intervals import mean_interval
from acr_ray.reporting.kinds import KindNumbers, both_kinds
from acr_ray.reporting.source import Source
from acr_ray.smoothing.bounds import round_down
from acr_ray.smoothing.rules import ONE_CLASS_KIND
from acr_ray.smoothing.run_noise import FLOAT

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
        classes: its numbers by class, by label; empty if it holds no images.
        p_a_error: how well its draws know the distribution of p_A; see `Source.p_a_error`.
        grade: what its certificates promise in floating point, ``sound`` or ``float``.
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
    classes: tuple[ClassNumbers, ...] = ()
    p_a_error: float | None = None
    grade: str = FLOAT

    @property
    def worst_class(self) -> ClassNumbers | None:
        """The class with the lowest certified accuracy at radius 0; ``None`` if there are not at least two."""
        return worst_class(self.classes) if len(self.classes) > 1 else None


def row_of(
    source: Source,
    radii: Sequence[float],
    common: tuple[int, float] | None,
    warnings: tuple[str, ...],
    names: Sequence[str],
) -> Row:
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
        classes=by_class(source, radii, names),
        p_a_error=source.p_a_error,
        grade=source.grade,
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


def constant_row(
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
