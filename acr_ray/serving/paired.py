"""Whether a mean difference over images is above a limit, known as soon as the images seen so far tell. numpy only.

Images come in a random order that was fixed beforehand. Each gives a difference d in {-1, 0, 1}: 1 where only the new
model is right, -1 where only the old one is. Wanted: is the mean of d over all M images at least ``-margin``?

A gambler who starts with 1 and bets, before each image, a part f of what the limit allows on d's being above what it
would be on average if the mean of all images were just at the limit, has a capital that is a supermartingale if the
mean is at or below it, so it ever reaches 1 / alpha with probability at most alpha (Ville 1939; Waudby-Smith & Ramdas
2020 and 2024 for sampling without replacement). Gamblers with several f share the start. Another group bets the
other way. Once all images are seen the mean is known and nothing is left to chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HOLDS, VIOLATED, OPEN = "holds", "violated", "open"
#: Parts of the largest bet that cannot lose everything.
BETS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.98])


class PairedTest:
    """Tests "the mean difference over all images is at least ``-margin``", image by image.

    Args:
        images: M, how many there are in all; None: they are a sample of a population without end, of which the mean
            is asked for.
        margin: see above, in (-1, 1).
        alpha_holds: probability that `HOLDS` is said though the mean is below, at most.
        alpha_violated: probability that `VIOLATED` is said though it is not, at most.

    Attributes:
        seen: images so far.
        total: sum of their differences.
    """

    def __init__(self, images: int | None, margin: float, alpha_holds: float, alpha_violated: float) -> None:
        self._images, self._limit = images, -margin
        self._enough = np.log(1 / alpha_holds), np.log(1 / alpha_violated)
        self._above = np.zeros(len(BETS))  # logarithms of capitals
        self._below = np.zeros(len(BETS))
        self.seen, self.total = 0, 0
        self.answer = OPEN
        self._known()

    def add(self, difference: int) -> str:
        """See the next image. Returns the answer so far, which no later image changes.

        Raises:
            ValueError: no difference of {-1, 0, 1}, or more images than there are.
        """
        if difference not in (-1, 0, 1) or (self._images is not None and self.seen >= self._images):
            raise ValueError(f"image {self.seen + 1} of {self._images}: difference {difference}; allowed: -1, 0, 1")
        if self.answer == OPEN:
            expected = self._expected()
            # expected lies in [-1, 1]: at its ends all images left are known, and nobody bets.
            gain = difference - expected
            if expected > -1:
                self._above += np.log1p(BETS * gain / (1 + expected))
            if expected < 1:
                self._below += np.log1p(-BETS * gain / (1 - expected))
        self.seen, self.total = self.seen + 1, self.total + difference
        if self.answer == OPEN:
            self._known()
        if self.answer == OPEN:
            if _mean(self._above) >= self._enough[0]:
                self.answer = HOLDS
            elif _mean(self._below) >= self._enough[1]:
                self.answer = VIOLATED
        return self.answer

    def _expected(self) -> float:
        """What the next image's difference is on average, were the mean of all just at the limit."""
        if self._images is None:
            return self._limit
        return (self._images * self._limit - self.total) / (self._images - self.seen)

    def _known(self) -> None:
        """Answer where the images left cannot change the answer."""
        if self._images is None:
            return
        needed, left = self._images * self._limit - 1e-9 * self._images, self._images - self.seen
        if self.total - left >= needed:
            self.answer = HOLDS
        elif self.total + left < needed:
            self.answer = VIOLATED


def _mean(logs: NDArray[np.float64]) -> float:
    most = logs.max()
    return float(most + np.log(np.exp(logs - most).mean()))
