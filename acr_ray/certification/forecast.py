"""What a certification would cost and answer: each stopping rule played out from a pilot. No torch, no Ray.

The pilot's draws have a noise phase of their own: a run that follows shares none of them, so looking at a forecast
before choosing a rule costs no validity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.certification.planned import Forecast
from acr_ray.certification.procedure import sparse
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.smoothing.distribution_rule import LOOKS, DistributionRule
from acr_ray.smoothing.rules import Draws, Rule
from acr_ray.smoothing.stopping import rule_for

#: Stopping rule and kind of certificate of each forecast.
CHOICES = (
    ("fixed", "one-class"),
    ("radii", "one-class"),
    ("width", "one-class"),
    ("fixed", "two-class"),
    ("radii", "two-class"),
    ("distribution", "one-class"),
)


def forecasts(
    settings: CertifySettings,
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    repetitions: int = 4,
    images: int | None = None,
) -> list[Forecast]:
    """Play each rule out on classifiers that the pilot's draws leave plausible.

    An image's class probabilities are drawn from the posterior under Perks' prior (a Dirichlet distribution with one
    draw in all, spread evenly over the classes), then selection and estimation draws from them.

    Args:
        settings: of the run; stopping and certificate are varied, all else is taken as it is.
        counts: pilot draws by class, ``(images, num_classes)``.
        labels: ``(images,)``.
        repetitions: runs that are played out.
        images: of the run, where that is more than the pilot's: how many draws know the distribution of p_A depends
            on it.

    Returns:
        One forecast for each of `CHOICES` that these settings allow; the same for the same arguments.
    """
    found = []
    for stopping, certificate in CHOICES:
        changed = settings.change(
            {"stopping": stopping, "certificate": certificate, "bound": "clopper-pearson"}
            | ({"stop_when_wrong": False} if stopping == "distribution" else {}),
            "certify --plan",
        )
        rng = np.random.default_rng(0)  # each rule on the same draws, as far as it looks at the same places
        if stopping == "distribution":
            found.append(_play_all(changed, counts, labels, images or len(counts), rng))
        else:
            found.append(_play(changed, counts, labels, repetitions, rng))
    return found


def _play_all(
    settings: CertifySettings,
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    images: int,
    rng: np.random.Generator,
) -> Forecast:
    """One run of all images, each of which resembles one of the pilot's in turn."""
    rule = rule_for(settings)
    assert isinstance(rule, DistributionRule)
    like = np.arange(images) % len(counts)
    p = np.stack([rng.dirichlet(counts[i] + 1.0 / counts.shape[1]) for i in like])
    label = labels[like]
    selected = rng.multinomial(settings.n0, p).argmax(axis=1)
    p_label, p_top = p[np.arange(images), label], p[np.arange(images), selected]
    _, drawn, _ = play_together(rule, settings.n0, p_label, rng)
    held = radius(lower_bound(rng.binomial(drawn, p_top), drawn, settings.alpha / LOOKS), settings.sigma)
    counted = np.where((selected == label) & (held > 0), held, 0.0)
    shares = np.stack([(counted > 0) & (counted >= r) for r in settings.radii])
    return Forecast(
        stopping=settings.stopping,
        certificate=settings.certificate,
        draws=float(settings.n0 + drawn.mean()),
        certified_accuracy=tuple(shares.mean(axis=1).tolist()),
        errors=tuple((shares.std(axis=1) / np.sqrt(len(counts))).tolist()),
        acr=float(counted.mean()),
    )


def play_together(
    rule: DistributionRule, n0: int, p: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Play one run of a rule that stops all images together.

    Args:
        n0: pilot draws of an image.
        p: probability of its label, (M,).

    Returns:
        counts of the labels, (M,); the draws that they are of, (M,), without the pilot's; the error that they prove.
    """
    counts, before, error = np.zeros(p.size, dtype=np.int64), np.zeros(p.size, dtype=np.int64), 1.0
    for draws in rule.draws_at_looks(rng.binomial(n0, p)):
        counts, before = counts + rng.binomial(draws - before, p), draws
        error = rule.error_after(counts, draws)
        if error <= rule.error:
            break
    return counts, before, error


def _play(
    settings: CertifySettings,
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    repetitions: int,
    rng: np.random.Generator,
) -> Forecast:
    rule, images = rule_for(settings), len(counts)
    prior = 1.0 / counts.shape[1]
    draws = np.empty((repetitions, images))
    held = np.empty((repetitions, images))
    right = np.empty((repetitions, images), dtype=bool)
    for repetition in range(repetitions):
        for image in range(images):
            p = rng.dirichlet(counts[image] + prior)
            used, p_lower, selected = _image(settings, rule, p, int(labels[image]), rng)
            draws[repetition, image] = used
            held[repetition, image] = float(radius(p_lower, settings.sigma))
            right[repetition, image] = p_lower > 0.5 and selected == labels[image]
    counted = np.where(right, held, 0.0)
    shares = np.stack([right & (held >= r) for r in settings.radii]).mean(axis=1)  # (radii, images)
    errors = shares.std(axis=1) / np.sqrt(images)
    return Forecast(
        stopping=settings.stopping,
        certificate=settings.certificate,
        draws=float(draws.mean()),
        certified_accuracy=tuple(shares.mean(axis=1).tolist()),
        errors=tuple(errors.tolist()),
        acr=float(counted.mean()),
    )


def _image(
    settings: CertifySettings, rule: Rule, p: NDArray[np.float64], label: int, rng: np.random.Generator
) -> tuple[int, float, int]:
    """Return the noise draws spent on an image, its p_lower and its selected class."""
    select = rng.multinomial(settings.n0, p)
    selected = int(select.argmax())
    if settings.stop_when_wrong and selected != label:
        return settings.n0, 0.0, selected
    steps = rng.multinomial(np.diff(rule.looks, prepend=0), p)
    looks: list[dict[int, int]] = []
    for total in np.cumsum(steps, axis=0):
        looks.append(sparse(total))
        judged = rule.judge_draws(Draws(selected, sparse(select), looks))
        if judged.stop:
            break
    return settings.n0 + rule.looks[len(looks) - 1], judged.p_lower, selected


def choose_pilot(images: int, most: int) -> Sequence[int]:
    """Return which of the images a pilot draws: evenly spread, at most ``most``."""
    return np.unique(np.linspace(0, images - 1, min(images, most)).round().astype(int)).tolist()
