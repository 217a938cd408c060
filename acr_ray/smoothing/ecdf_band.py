"""Bounds on the share of images with p_A >= x, for all x at once, from counts of noise draws. numpy and scipy only.

Image i gets its label with probability ``p_i``; ``k_i`` of its ``n_i`` draws did, and ``n_i`` was fixed before the
first of them. Wanted: N(x), the number of images with ``p_i >= x``. Counting the images with ``k_i / n_i >= x`` is
wrong by those that noise carried over x. So each image gets a **score** instead: a function psi of its count, at most
1, with ``E_p exp(theta psi) <= 1`` for every ``p <= x``. An image with ``p_i >= x`` has ``E exp(theta psi) <=
exp(theta)``, and images are independent, so ``E exp(theta sum_i psi(k_i)) <= exp(theta N(x))``; by Markov's inequality

    N(x) >= sum_i psi(k_i) - log(1 / delta) / theta    with probability at least 1 - delta,

whatever the p_i are. From above the same is done for ``1 - p_i`` and ``1 - x``. With delta = alpha / (2 |grid|) all
bounds on a fixed grid of x hold together; in between N is monotone.

*The score.* With b the probabilities of Binomial(n, x): ``psi(k) = min(1, (kappa - log b(k)) / theta)`` for
``k >= n x``, and ``min(0, the same)`` below; kappa is the largest with ``E_x exp(theta psi) <= 1``. It is 0, then
negative, then positive as k grows, so ``g = exp(theta psi) - 1`` changes its sign once, at some k*. For ``p < x`` the
likelihood ratio ``L(k) = b_p(k) / b_x(k)`` falls with k, hence ``E_p g = E_x L g <= L(k*) E_x g <= 0``: that the
expectation at x is right suffices. Among scores with one change of sign this one has the greatest sum over all p
(maximise ``sum psi`` under ``E_x exp(theta psi) = 1``: the exponential times b is constant where psi is not clipped).

*theta* trades the two losses, of the scores and of ``log(1 / delta) / theta``, and is chosen from the number of images
and the error asked for, never from counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from acr_ray.smoothing.bounds import lower_bound, upper_bound

#: Beyond so many draws an image's own interval is narrow enough: no scores are needed.
MOST_SCORED = 1_000_000
_THETAS = np.geomspace(0.02, 60.0, 120)
#: Rounding errors of log-gamma stay below: what an expectation that must be at most 1 is kept below it.
_GUARD = 1e-8
#: Scores that are worked out together.
_AT_ONCE = 500_000


@lru_cache(maxsize=8)
def grid(images: int) -> NDArray[np.float64]:
    """The x at which bounds of so many images hold, ascending, in (0, 1); in between they follow by monotony.

    Spaced like standard errors: of 10,000 images 0.0004 apart in the middle.
    """
    cells = int(np.clip(0.4 * images, 400, 4000))
    return np.sin(np.arange(1, cells) * (np.pi / 2 / cells)) ** 2


@dataclass(frozen=True)
class EcdfBand:
    """Bounds on the share of images with p_A >= x.

    Attributes:
        x: see `grid`.
        low, high: at each x, in [0, 1], not increasing.
    """

    x: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def at(self, x: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return low and high at any x in [0, 1]."""
        x = np.asarray(x, dtype=np.float64)
        above = np.searchsorted(self.x, x, side="left")  # the first grid point >= x
        below = np.searchsorted(self.x, x, side="right") - 1  # the last <= x
        low, high = np.append(self.low, 0.0)[above], np.insert(self.high, 0, 1.0)[below + 1]
        return np.where(x <= 0, 1.0, low), high

    def error(self, counts: ArrayLike, draws: ArrayLike, low_x: float, high_x: float) -> float:
        """Return how far the share of images with ``count / draws >= x`` may lie from the truth, at most.

        Args:
            counts, draws: of `ecdf_band`.
            low_x, high_x: for any x between them.
        """
        p = np.sort(np.asarray(counts) / np.asarray(draws))
        shares = 1 - np.searchsorted(p, self.x - 1e-12, side="left") / p.size
        first = max(int(np.searchsorted(self.x, low_x, side="right")) - 1, 0)
        last = min(int(np.searchsorted(self.x, high_x, side="left")), len(self.x) - 1)
        cells = slice(first, last), slice(first + 1, last + 1)
        # Between two grid points the truth lies in [low at the right one, high at the left one].
        return float(np.maximum(self.high[cells[0]] - shares[cells[1]], shares[cells[0]] - self.low[cells[1]]).max())


def ecdf_band(counts: ArrayLike, draws: ArrayLike, alpha: float, error: float = 0.01, looks: int = 1) -> EcdfBand:
    """Bounds that all hold together with probability at least ``1 - alpha``, whatever the images' p_A are.

    Args:
        counts: draws of each image that gave its label, (M,), at least one image.
        draws: draws of each image, (M,), >= 1, fixed before they were drawn.
        alpha: in (0, 1).
        error: share of images that the bounds should be apart from an estimate by, about; > 0. Bounds hold for
            every value; they are narrow for draws that give about this error.
        looks: how often bounds are asked for in all while draws are added: each of them may use ``alpha / looks``.

    Raises:
        ValueError: a count or an option out of its range.
    """
    counts, draws = np.asarray(counts, dtype=np.int64), np.asarray(draws, dtype=np.int64)
    if counts.ndim != 1 or counts.shape != draws.shape or not counts.size:
        raise ValueError(f"counts {counts.shape} and draws {draws.shape} must be one value an image, at least one")
    if not 0 < alpha < 1 or not error > 0 or looks < 1 or (counts < 0).any() or (counts > draws).any():
        raise ValueError("alpha must lie in (0, 1), error be positive, looks >= 1, and counts in [0, draws]")
    images, level = counts.size, alpha / looks
    if draws.max() > MOST_SCORED:
        return _by_image(counts, draws, level)
    x = grid(images)
    loss = np.log(2 * len(x) / level)
    theta = sharpness(images * error, loss)
    low = np.ceil(_total(counts, draws, theta) - loss / theta - 1e-9)
    high = images - np.ceil(_total(draws - counts, draws, theta)[::-1] - loss / theta - 1e-9)
    low, high = np.clip(low, 0, images) / images, np.clip(high, 0, images) / images
    return EcdfBand(x, np.maximum.accumulate(low[::-1])[::-1], np.minimum.accumulate(high))


def _by_image(counts: NDArray[np.int64], draws: NDArray[np.int64], alpha: float) -> EcdfBand:
    """Bounds from each image's interval, at alpha shared among images (union bound)."""
    each, x = alpha / (2 * counts.size), grid(counts.size)
    low, high = (np.sort(bound(counts, draws, each)) for bound in (lower_bound, upper_bound))
    return EcdfBand(x, *(1 - np.searchsorted(ends, x, side="left") / counts.size for ends in (low, high)))


def _total(counts: NDArray[np.int64], draws: NDArray[np.int64], theta: float) -> NDArray[np.float64]:
    """The sum of scores over images at each x of their grid."""
    places = len(grid(counts.size))
    total = np.zeros(places)
    for n in np.unique(draws):
        of_n = counts[draws == n]
        first, score = _scores(int(n), theta, counts.size)
        width = score.shape[1]
        of_n.sort()
        begin, end = np.searchsorted(of_n, first), np.searchsorted(of_n, first + width)
        inside = end - begin  # images in each x's window
        if inside.sum() < places * width:
            x = np.repeat(np.arange(places), inside)
            image = np.arange(len(x)) - np.repeat(np.cumsum(inside) - inside - begin, inside)
            total += np.bincount(x, score[x, of_n[image] - first[x]], minlength=places)
        else:
            images = np.bincount(of_n, minlength=int(n) + 1 + width)  # by count, with room beyond n
            windows = np.lib.stride_tricks.sliding_window_view(images, width)
            total += [float(windows[begin] @ row) for begin, row in zip(first, score, strict=True)]
        total += of_n.size - end  # above the window the score is 1
    return total


@lru_cache(maxsize=48)
def _scores(n: int, theta: float, images: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The score of each count at each x of the grid of so many images.

    Returns:
        the first count of each x's window, int64 (X,); and the scores in the window, (X, W). Below it the score is 0,
        above it 1.
    """
    x = grid(images)
    reach = np.ceil(np.sqrt(n * x * (1 - x)) * np.sqrt(2 * theta + 20) + theta + 10)
    first = np.maximum(np.floor(n * x - reach), 0).astype(np.int64)
    width = int(min(2 * reach.max() + 2, n + 1))
    score = np.empty((len(x), width))
    rows = max(1, _AT_ONCE // width)
    for begin in range(0, len(x), rows):  # a dozen arrays of the window's size are at work, so not all of it at once
        some = slice(begin, begin + rows)
        score[some] = _scores_at(x[some], first[some], width, n, theta)
    return first, score


def _scores_at(
    x: NDArray[np.float64], first: NDArray[np.int64], width: int, n: int, theta: float
) -> NDArray[np.float64]:
    count = first[:, None] + np.arange(width)
    log_b = np.where(count <= n, _log_binomial(np.minimum(count, n), n, x[:, None]), -np.inf)
    up = count >= np.ceil(n * x - 1e-9)[:, None]
    # From kappa = cut on a score is clipped, to 1 or 0, and adds its weight to the expectation; before, exp(kappa).
    cut = log_b + theta * up
    weight = np.exp(cut)
    order = np.argsort(cut, axis=1)
    cut_up = np.take_along_axis(cut, order, axis=1)
    below = np.where(first > 0, special.bdtr(np.maximum(first - 1, 0), n, x), 0.0)
    last = first + width - 1
    beyond = np.where(last < n, special.bdtrc(np.minimum(last, n), n, x), 0.0)
    clipped = np.zeros((len(x), width + 1))  # the weight of the first j counts that are clipped, and outside the window
    np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1, out=clipped[:, 1:])
    clipped += (below + np.exp(theta) * beyond)[:, None]
    free = width - 1 - np.arange(width)  # counts that are not clipped yet
    expected = clipped[:, 1:] + np.exp(cut_up) * free
    fits = (expected <= 1 - _GUARD).sum(axis=1)[:, None]  # how many are clipped, in the order of their cuts
    room = np.maximum(1 - _GUARD - np.take_along_axis(clipped, fits, axis=1), 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.log(room / (width - fits))  # infinite where all are clipped
        score = np.where(kappa >= cut, up * 1.0, (kappa - log_b) / theta)
    score[count > n] = 0.0  # no image has such a count
    return score


def _log_binomial(k: NDArray[np.int64], n: int, p: NDArray[np.float64]) -> NDArray[np.float64]:
    factorials = special.gammaln(np.arange(n + 1) + 1.0)
    return factorials[n] - factorials[k] - factorials[n - k] + k * np.log(p) + (n - k) * np.log1p(-p)


def sharpness(budget: float, loss: float) -> float:
    """The theta with which an error of ``budget`` images needs the fewest draws.

    Args:
        budget: images that the bound may be off by.
        loss: ``log(1 / delta)``.
    """
    worth = (budget - loss / _THETAS) / deficits()
    return float(_THETAS[int(np.argmax(worth))])


@lru_cache(maxsize=1)
def deficits() -> NDArray[np.float64]:
    """How much the scores lose at each of `_THETAS`, in the limit of many draws.

    The sum over p of ``1[p >= x] - E_p psi``, in units of the images within one standard error of an estimate.
    """
    return np.array([float(((DISTANCES >= 0) - limit_score(theta)).sum() * DISTANCE_STEP) for theta in _THETAS])


DISTANCES = np.linspace(-13.0, 13.0, 2601)
DISTANCE_STEP = DISTANCES[1] - DISTANCES[0]


def limit_score(theta: float) -> NDArray[np.float64]:
    """The score as a function of the estimate's distance from x in standard errors, at `DISTANCES`."""
    log_density = -0.5 * DISTANCES**2 - 0.5 * np.log(2 * np.pi)

    def score(kappa: float) -> NDArray[np.float64]:
        return np.minimum((DISTANCES >= 0) * 1.0, (kappa - log_density) / theta)

    def excess(kappa: float) -> float:
        return float((np.exp(theta * score(kappa) + log_density)).sum() * DISTANCE_STEP - 1.0)

    return score(optimize.brentq(excess, -200.0, 20.0))
