"""From counts to answers: the decisions of CERTIFY and PREDICT. numpy and scipy only.

Source: Cohen, Rosenfeld & Kolter (2019), Figure "Pseudocode for certification and prediction".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from acr_ray.smoothing.bounds import lower_bound, radius, two_sided_p_value

ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """One image's certificate.

    Attributes:
        predicted: the class selected by the n0 draws, also where the certificate abstains.
        abstained: the bound on p_A is not above 1/2: nothing is claimed.
        radius: certified l2 radius in input units; 0 where it abstains.
        p_lower: Clopper-Pearson lower bound on p_A, holds with probability 1 - alpha.
        count_top: estimation draws that gave ``predicted``.
        n: estimation draws.
    """

    predicted: int
    abstained: bool
    radius: float
    p_lower: float
    count_top: int
    n: int


def select_class(counts0: ArrayLike) -> int:
    """The most frequent class of the selection draws; the lowest number among equals."""
    return int(np.argmax(np.asarray(counts0)))


def certify(counts0: ArrayLike, counts: ArrayLike, sigma: float, alpha: float) -> Certificate:
    """CERTIFY from class counts.

    Args:
        counts0: selection counts, ``(num_classes,)``.
        counts: estimation counts of *fresh* draws, ``(num_classes,)``.
        sigma: noise in input units, > 0.
        alpha: probability in (0, 1) that the certificate is wrong.

    Raises:
        ValueError: no draws, or alpha out of range.
    """
    counts = np.asarray(counts, dtype=np.int64)
    predicted, n = select_class(counts0), int(counts.sum())
    p_lower = float(lower_bound(counts[predicted], n, alpha))
    certified = float(radius(p_lower, sigma))
    return Certificate(predicted, p_lower <= 0.5, certified, p_lower, int(counts[predicted]), n)


def predict(counts: ArrayLike, alpha: float) -> int:
    """PREDICT from class counts: the top class, or ABSTAIN where its lead over the second may be chance."""
    counts = np.asarray(counts, dtype=np.int64)
    order = np.argsort(-counts, kind="stable")
    first, second = int(counts[order[0]]), int(counts[order[1]]) if len(counts) > 1 else 0
    return int(order[0]) if two_sided_p_value(first, first + second) <= alpha else ABSTAIN
