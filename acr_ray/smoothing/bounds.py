"""Confidence bounds on a probability and the radii that follow from them. numpy and scipy only.

Sources: Clopper & Pearson (1934), Biometrika 26; Stevens (1950), Biometrika 37; Cohen, Rosenfeld & Kolter (2019),
"Certified Adversarial Robustness via Randomized Smoothing", Theorem 1 and Algorithm CERTIFY.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats


def lower_bound(count: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """Exact one-sided Clopper-Pearson lower bound of a binomial probability.

    The largest p with ``P[Binomial(n, p) >= count] <= alpha``: it exceeds the true probability with
    probability at most ``alpha``, whatever that is.

    Args:
        count: successes, integers in [0, n], any shape.
        n: draws, integers >= 1, broadcast against ``count``.
        alpha: error probability in (0, 1), broadcast against ``count``.

    Returns:
        float64 in [0, 1], the broadcast shape. ``0`` at ``count == 0``; ``alpha**(1/n)`` at ``count == n``.

    Raises:
        ValueError: a value is out of its range.
    """
    k, n = _counts(count, n)
    _check_alpha(alpha)
    inner = special.betaincinv(np.maximum(k, 1), np.maximum(n - k + 1, 1), alpha)
    # At count == n the equation is p**n = alpha: closed form, exact where betaincinv is only close.
    return np.where(k == 0, 0.0, np.where(k == n, np.exp(np.log(alpha) / n), inner))


def upper_bound(count: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """One-sided Clopper-Pearson upper bound; shapes, ranges and errors as in `lower_bound`."""
    k, n = _counts(count, n)
    return 1.0 - lower_bound(n - k, n, alpha)


def randomized_lower_bound(count: int, n: int, alpha: float, coin: float) -> float:
    """Randomised Clopper-Pearson lower bound (Stevens 1950).

    The p with ``P[X > count] + coin * P[X = count] = alpha``, X ~ Binomial(n, p). At the true p the left side is
    uniform when the coin is, so the bound exceeds the true p with probability alpha; it lies between the
    Clopper-Pearson bounds of ``count`` and ``count + 1``. At ``count == n`` (where a small coin would claim p = 1)
    and at 0 it is Clopper-Pearson's own, which is lower and so holds too.

    Args:
        count, n: successes in [0, n], draws >= 1.
        alpha: error probability in (0, 1).
        coin: in [0, 1]; 1 gives Clopper-Pearson.

    Returns:
        in [0, 1).

    Raises:
        ValueError: a value is out of its range.
    """
    least = float(lower_bound(count, n, alpha))
    if not 0.0 <= coin <= 1.0:
        raise ValueError(f"coin must lie in [0, 1], not {coin}")
    if count in (0, n) or coin == 1.0:
        return least

    def excess(p: float) -> float:
        more = special.betainc(count + 1, n - count, p)
        return float(more + coin * (special.betainc(count, n - count + 1, p) - more)) - alpha

    most = float(lower_bound(count + 1, n, alpha))
    if excess(most) <= 0.0:  # a coin of 0, up to rounding
        return most
    # The root's own tolerance is taken off, so that the bound does not err upwards.
    return max(least, float(optimize.brentq(excess, least, most, xtol=1e-14)) - 2e-14) if excess(least) < 0 else least


def radius(p_lower: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Certified l2 radius ``sigma * Phi^-1(p_lower)``; 0 where ``p_lower <= 1/2`` (nothing is certified).

    Args:
        p_lower: lower bound on the top class's probability, in [0, 1].
        sigma: standard deviation of the noise in input units, > 0.

    Returns:
        float64 in input units, the broadcast shape; ``inf`` only at ``p_lower == 1``.
    """
    p = np.asarray(p_lower, dtype=np.float64)
    return np.asarray(sigma, dtype=np.float64) * np.where(p > 0.5, special.ndtri(np.maximum(p, 0.5)), 0.0)


def max_radius(sigma: float, n: int, alpha: float) -> float:
    """The largest radius that ``n`` draws can certify, ``sigma * Phi^-1(alpha**(1/n))``; 0 where it is none."""
    return float(radius(lower_bound(n, n, alpha), sigma))


def two_sided_p_value(count: int, n: int) -> float:
    """P-value of the two-sided binomial test of ``count`` out of ``n`` at 1/2; 1.0 for ``n == 0``."""
    return 1.0 if n == 0 else float(stats.binomtest(int(count), int(n), 0.5).pvalue)


def round_down(value: float, digits: int) -> str:
    """A non-negative number as text with ``digits`` decimals, never more than the number itself.

    Works on the exact binary value: 0.1 + 0.2 and the like cannot push a digit up.
    """
    from decimal import ROUND_FLOOR, Context, Decimal

    # Digits enough for the largest float: with the usual 28, quantize refuses numbers above about 10^22.
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR, Context(prec=400)))


def _counts(count: ArrayLike, n: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    k, n = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if np.any(n < 1) or np.any(k < 0) or np.any(k > n) or np.any(k != np.floor(k)):
        raise ValueError("counts must be whole numbers in [0, n], and n at least 1")
    return k, n


def _check_alpha(alpha: ArrayLike) -> None:
    if not np.all((np.asarray(alpha) > 0.0) & (np.asarray(alpha) < 1.0)):
        raise ValueError(f"alpha must lie in (0, 1), not {alpha!s}")
