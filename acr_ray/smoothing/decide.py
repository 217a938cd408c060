"""From counts to answers: the decisions of CERTIFY and PREDICT. numpy and scipy only.

Source: Cohen, Rosenfeld & Kolter (2019), Figure "Pseudocode for certification and prediction".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from acr_ray.smoothing.bounds import lower_bound, radius, two_sided_p_value
from acr_ray.smoothing.rules import ONE_CLASS_KIND, TWO_CLASS_KIND
from acr_ray.smoothing.two_class import runner_up, two_class_p_lower

ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """One image's certificate.

    Attributes:
        predicted: the class selected by the n0 draws, also where the certificate abstains.
        abstained: nothing is claimed: the bound on p_A is not above 1/2; of two-class certificates: no lead over the
            runner-up is proved.
        radius: certified l2 radius in input units; 0 where it abstains.
        p_lower: Clopper-Pearson lower bound on p_A, holds with probability 1 - alpha; of two-class certificates the
            p_A that a one-class certificate of the same radius needs, 0 where it abstains.
        count_top: estimation draws that gave ``predicted``.
        n: estimation draws.
        kind: ``one-class`` or ``two-class``; radii of the two are different claims.
        noise, step, grade: of the noise, see `acr_ray.smoothing.run_noise.NoiseFacts`.
        rounded: how far the image was rounded to the noise's grid (l2, input units): the certificate speaks of the
            rounded image.
    """

    predicted: int
    abstained: bool
    radius: float
    p_lower: float
    count_top: int
    n: int
    kind: str = ONE_CLASS_KIND
    noise: str = ""
    step: str = ""
    grade: str = "float"
    rounded: float = 0.0


def select_class(counts0: ArrayLike) -> int:
    """The most frequent class of the selection draws; the lowest number among equals."""
    return int(np.argmax(np.asarray(counts0)))


def certify(
    counts0: ArrayLike, counts: ArrayLike, sigma: float, alpha: float, kind: str = ONE_CLASS_KIND
) -> Certificate:
    """CERTIFY from class counts.

    Args:
        counts0: selection counts, ``(num_classes,)``.
        counts: estimation counts of *fresh* draws, ``(num_classes,)``.
        sigma: noise in input units, > 0.
        alpha: probability in (0, 1) that the certificate is wrong.
        kind: ``one-class`` (Cohen et al.'s) or ``two-class`` (`acr_ray.smoothing.two_class`).

    Raises:
        ValueError: no draws, alpha out of range, or an unknown kind.
    """
    if kind not in (ONE_CLASS_KIND, TWO_CLASS_KIND):
        raise ValueError(f"kind: {kind}; allowed: {ONE_CLASS_KIND}, {TWO_CLASS_KIND}")
    counts = np.asarray(counts, dtype=np.int64)
    predicted, n = select_class(counts0), int(counts.sum())
    if kind == TWO_CLASS_KIND:
        p_lower = float(two_class_p_lower(counts[predicted], runner_up(counts, predicted), n, alpha))
    else:
        p_lower = float(lower_bound(counts[predicted], n, alpha))
    certified = float(radius(p_lower, sigma))
    return Certificate(predicted, p_lower <= 0.5, certified, p_lower, int(counts[predicted]), n, kind)


def predict(counts: ArrayLike, alpha: float) -> int:
    """PREDICT from class counts: the top class, or ABSTAIN where its lead over the second may be chance."""
    counts = np.asarray(counts, dtype=np.int64)
    order = np.argsort(-counts, kind="stable")
    first, second = int(counts[order[0]]), int(counts[order[1]]) if len(counts) > 1 else 0
    return int(order[0]) if two_sided_p_value(first, first + second) <= alpha else ABSTAIN
