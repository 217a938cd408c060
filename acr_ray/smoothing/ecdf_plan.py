"""How many draws each image needs for the distribution of p_A, from a few draws of all. numpy and scipy only.

What it decides rests on pilot draws, which are independent of the draws that `ecdf_band` uses; a bad plan costs draws,
never validity.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from acr_ray.smoothing.ecdf_band import DISTANCE_STEP, DISTANCES, grid, limit_score, sharpness

#: Each step's draws are about this many times those of the one before: the R20 series of preferred numbers.
RATIO = 10**0.05
_POPULATION = np.sin(np.linspace(0.003, math.pi / 2 - 0.003, 500)) ** 2  # values of p that images may have
_SMOOTHING = 20  # steps of expectation maximisation: more would see lumps in the pilot's noise
_STEPS = 120  # of the prices


def ladder(block: int, most: int) -> NDArray[np.int64]:
    """Return numbers of draws to choose from: whole blocks, each about `RATIO` times the one before; the last is most.

    Args:
        block: draws of a block.
        most: draws of an image, at most.
    """
    steps = np.arange(int(math.log(max(most / block, 1.0), RATIO)) + 2)
    sizes = np.unique(np.round(RATIO**steps).astype(np.int64)) * block
    return np.append(sizes[sizes < most], most)


def planned_draws(
    pilot: NDArray[np.int64], n0: int, sizes: NDArray[np.int64], alpha: float, error: float, low: float, high: float
) -> NDArray[np.int64]:
    """For each image the step of the ladder that will do, if pilot and population are what they seem.

    The population of p_A is estimated from the pilot counts (maximum likelihood, stopped early so that it is smooth).
    Every x has a price, that of an image's being undecided there; each pilot count takes the number of draws that
    costs least, and prices are raised where too many would be undecided and lowered where fewer than allowed are.

    Args:
        pilot: pilot draws of each image that gave its label, (M,).
        n0: pilot draws of an image.
        sizes: see `ladder`.
        alpha, error: of `ecdf_band`, the error in shares of images.
        low, high: x for which the error is asked for.

    Returns:
        positions in ``sizes``, (M,); a function of the pilot count alone, given all pilot counts together.
    """
    images = len(pilot)
    loss = math.log(2 * len(grid(images)) / alpha)
    theta = sharpness(images * error, loss)
    allowed = 2 * max(images * error - loss / theta, 0.1 * images * error)
    number = np.bincount(pilot, minlength=n0 + 1)
    seen = np.flatnonzero(number)
    weight = number[seen]
    share = _posterior(seen, weight, n0)
    places = special.expit(np.linspace(special.logit(low), special.logit(high), 150))
    undecided = np.stack([share @ _undecided(_POPULATION[:, None], places, int(n), theta) for n in sizes])
    price = np.full(len(places), float(sizes[min(5, len(sizes) - 1)]))
    best, chosen = math.inf, np.zeros(len(seen), dtype=np.int64)
    for step in range(_STEPS):
        # Rounded, so that another processor's last bits choose no other number of draws.
        price = np.round(price, 6)
        choice = np.argmin(np.round(sizes[:, None] + undecided @ price, 6), axis=0)
        at = (weight[:, None] * undecided[choice, np.arange(len(seen))]).sum(axis=0) / allowed
        cost = float(np.round((weight * sizes[choice]).sum() * max(at.max(), 1.0) ** 2, 6))
        if cost < best:
            best, chosen = cost, choice
        price = price * np.clip(at, 0.2, 5.0) ** (1.0 if step < 40 else 0.3 if step < 80 else 0.1)
    of_count = np.zeros(n0 + 1, dtype=np.int64)
    of_count[seen] = chosen
    return of_count[pilot]


def _posterior(seen: NDArray[np.int64], weight: NDArray[np.int64], n0: int) -> NDArray[np.float64]:
    """What an image with each pilot count may be: probabilities of `_POPULATION`, (counts, values)."""
    fit = special.xlogy(seen[:, None], _POPULATION) + special.xlog1py(n0 - seen[:, None], -_POPULATION)
    likelihood = np.exp(fit - fit.max(axis=1, keepdims=True))
    population = np.full(len(_POPULATION), 1.0 / len(_POPULATION))
    for _ in range(_SMOOTHING):
        share = likelihood * population
        share /= share.sum(axis=1, keepdims=True)
        population = weight @ share / weight.sum()
    share = likelihood * population
    return share / share.sum(axis=1, keepdims=True)


def _undecided(p: NDArray[np.float64], x: NDArray[np.float64], n: int, theta: float) -> NDArray[np.float64]:
    """How much of an image with p_A = p is lost at x to both bounds after n draws, in the limit of many draws."""
    distance, lost = _lost(theta)
    t = (p - x) / np.sqrt(x * (1 - x) / n)
    return np.interp(t, distance, lost) + np.interp(-t, distance, lost)


@lru_cache(maxsize=4)
def _lost(theta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``1[t >= 0] - E psi`` of an image whose p_A lies t standard errors above x."""
    score = limit_score(theta)
    t = np.linspace(-12.0, 12.0, 481)
    density = np.exp(-0.5 * (DISTANCES - t[:, None]) ** 2) / math.sqrt(2 * math.pi) * DISTANCE_STEP
    return t, (t >= 0) - density @ score - special.ndtr(t - DISTANCES[-1])
