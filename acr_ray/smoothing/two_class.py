"""The two-class certificate: a radius from the counts of all classes, not of the selected one alone.

numpy and scipy only. Source: Cohen, Rosenfeld & Kolter (2019), Theorem 1: the smoothed classifier answers A everywhere
within ``R = sigma/2 (z(p_A) - max_{c != A} z(p_c))``, z = Phi^-1. Their CERTIFY, the one-class certificate, puts
``1 - p_A`` in the place of every ``p_c``.

**Why the number of classes costs nothing** (intersection-union, Berger 1982). ``R = min_c R_c`` with
``R_c = sigma/2 (z(p_A) - z(p_c))``. Let each ``L_c`` exceed its own ``R_c`` with probability at most alpha. The class
c* with the smallest ``R_c`` is fixed by the classifier, not by the draws, so
``P[min_c L_c > R] <= P[L_{c*} > R_{c*}] <= alpha``.

**The bound of one class c** rejects the hypotheses "R_c <= r" for growing r and claims the last r rejected. For each
hypothesis one test at level alpha is fixed beforehand:

- r = 0 ("p_c is at least p_A"): the exact test of n_A out of ``n_A + n_c`` at 1/2, conditional on the sum;
- r > 0: the plain bound, ``z(lower bound of p_A at alpha/2) - z(upper bound of p_c at alpha/2) >= 2 r / sigma``
  (Clopper-Pearson's, union bound over the two);
- r beyond what the plain bound can say of any counts: the one-class bound at alpha, which holds for every c since
  ``p_c <= 1 - p_A``. Only n agreeing draws reach it, so the largest certified radius is the one-class one.

The hypotheses are nested: a claim above ``R_c`` needs the true hypothesis "R_c <= R_c" rejected, by one test of level
alpha. Every ``L_c`` falls as ``n_c`` grows, so the class with the most draws beside A decides; nothing is selected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from acr_ray.smoothing.bounds import lower_bound, upper_bound

#: A claim of radius 0 as a p_lower: the least number whose radius is above 0.
LEAST_CLAIM = float(np.nextafter(0.5, 1.0))


def two_class_p_lower(count_top: ArrayLike, count_second: ArrayLike, n: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Return ``Phi(L / sigma)`` of the two-class lower bound L on the radius; 0 where nothing is certified.

    It is the p_A that a one-class certificate of the same radius needs, not a bound on p_A: `bounds.radius` turns it
    into the radius.

    Args:
        count_top: estimation draws that gave the selected class, integers in [0, n], any shape.
        count_second: the most draws that any other class got, integers in [0, n - count_top].
        n: estimation draws, >= 1.
        alpha: probability in (0, 1) that a certificate is wrong.

    Returns:
        float64, the broadcast shape: 0.0, or in (1/2, 1). Certified with radius 0 is the least number above 1/2.

    Raises:
        ValueError: a value is out of its range.
    """
    top, second, n = np.broadcast_arrays(*(np.asarray(v, dtype=np.int64) for v in (count_top, count_second, n)))
    if np.any(second < 0) or np.any(second > n - top):
        raise ValueError("count_second must lie in [0, n - count_top]")
    gap = special.ndtri(lower_bound(top, n, alpha / 2)) - special.ndtri(upper_bound(second, n, alpha / 2))
    p = np.maximum(special.ndtr(gap / 2), LEAST_CLAIM)
    p = np.where(top == n, np.maximum(p, lower_bound(top, n, alpha)), p)
    return np.where(ahead(top, second, alpha), p, 0.0)


def ahead(count_top: ArrayLike, count_second: ArrayLike, alpha: float) -> NDArray[np.bool_]:
    """Return whether "the other class is at least as probable as the selected one" is rejected at level alpha.

    The exact one-sided binomial test of ``count_top`` out of both counts at 1/2; without draws of either it is not.
    """
    top, second = np.asarray(count_top, dtype=np.int64), np.asarray(count_second, dtype=np.int64)
    # P[Binomial(top + second, 1/2) >= top], which is 1 at top == 0.
    chance = np.where(top > 0, special.betainc(np.maximum(top, 1), second + 1, 0.5), 1.0)
    return chance <= alpha


def second_count(counts: Mapping[int, int], selected: int) -> int:
    """Return the same as `runner_up` of one image's draws by class; classes that never came are absent."""
    return max((count for label, count in counts.items() if label != selected), default=0)


def runner_up(counts: ArrayLike, selected: ArrayLike) -> NDArray[np.int64]:
    """Return the most draws that any class but the selected one got.

    Args:
        counts: ``(..., num_classes)``; with one class alone the answer is 0.
        selected: the class of each row, ``(...)``.
    """
    others = np.array(counts, dtype=np.int64)
    np.put_along_axis(others, np.asarray(selected, dtype=np.int64)[..., None], 0, axis=-1)
    return others.max(axis=-1)
