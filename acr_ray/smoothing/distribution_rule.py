"""The stopping rule `distribution`: draws for the distribution of p_A over all images. numpy and scipy only.

All images stop together. Pilot draws of every image (those that select its class) say how many draws each should have;
at a look all of them have that many, times a factor that grows from look to look, and it ends once `ecdf_band`, at
``alpha / LOOKS``, lies within the error asked for. How many draws an image has at a look depends on pilot draws
alone, so at each look its count is binomial; by the union bound over looks all bounds hold at whichever it stops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acr_ray.smoothing.bounds import lower_bound
from acr_ray.smoothing.ecdf_band import ecdf_band
from acr_ray.smoothing.ecdf_plan import ladder, planned_draws
from acr_ray.smoothing.rules import DISTRIBUTION, Draws, Judgement, Rule

#: Looks, and which step of the ladder each takes, from that planned.
OFFSETS = (*range(-3, 7), 8, 10, 13, 16, 20)
LOOKS = len(OFFSETS)
#: Lowest p_A for which the error is asked for, and highest if nothing else is asked for.
FROM, UPTO = 0.02, 0.98
MOST_BLOCK = 100  # draws of a block, at most: an image's draws are whole blocks


class DistributionRule(Rule):
    """Draws until the ECDF of p_A over all images is known to an error.

    Args:
        n: draws of an image, at most.
        n0: pilot draws of an image.
        block: draws of a block; every number of draws but n is a multiple of it.
        alpha: in (0, 1). Of the distribution: the error is larger with at most this probability. Of an image's own
            certificate, too (Clopper-Pearson at ``alpha / LOOKS``).
        error: share of images, in (0, 1).
        upto: highest p_A for which the error is asked for, in (`FROM`, 1).
    """

    name = DISTRIBUTION

    def __init__(self, n: int, n0: int, block: int, alpha: float, error: float, upto: float) -> None:
        self.looks, self._n0 = (n,), n0
        self._alpha, self.error, self.upto = alpha, error, upto
        self._sizes = ladder(block, n)

    def draws_at_looks(self, pilot: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many draws each image has at each look, (looks, M); not decreasing.

        Args:
            pilot: pilot draws of each image that gave its label, (M,).
        """
        step = planned_draws(pilot, self._n0, self._sizes, self._alpha / LOOKS, self.error, FROM, self.upto)
        steps = np.clip(step + np.array(OFFSETS)[:, None], 0, len(self._sizes) - 1)
        return self._sizes[steps]

    def error_after(self, counts: ArrayLike, draws: ArrayLike) -> float:
        """How far the share of images with ``count / draws >= x`` may lie from the truth, with probability 1 - alpha.

        Args:
            counts: draws of each image that gave its label, at a look.
            draws: all of them.
        """
        band = ecdf_band(counts, draws, self._alpha, self.error, LOOKS)
        return round(band.error(counts, draws, FROM, self.upto), 9)

    def judge_draws(self, draws: Draws) -> Judgement:
        """The certificate of one image once all have stopped."""
        counts = draws.looks[-1]
        p = float(lower_bound(counts.get(draws.selected, 0), sum(counts.values()), self._alpha / LOOKS))
        return Judgement(True, p if p > 0.5 else 0.0, "band")
