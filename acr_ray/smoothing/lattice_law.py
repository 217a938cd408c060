"""The law of lattice noise: a Gaussian rounded to the images' grid, as integers drawn by comparing random bits.

An image on a grid of step s is x = s m, m whole. With Z standard normal, ``round(x + sigma Z) = s (m + K)``, where
``P[K <= k] = Phi((k + 1/2) s / sigma)``: a law of whole numbers that does not depend on the image. It is drawn with 80
random bits u: K is the number of thresholds ``T_k = round(2**80 P[K <= k])`` that are at most u, counted from the
smallest value. Plain Python integers, no numpy: the thresholds are the same on every machine. See docs/noise.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

BITS = 80  # random bits that decide one number
GUIDE_BITS = 16  # the first of them, which nearly always suffice
SMOOTH = 64  # steps that sigma should be at least, so that rounding changes little
MOST = 2**14 - 1  # an image with its noise is kept as int16, with a bit to spare for the sampler's own marks
TAIL = Fraction(103, 10)  # Phi(-10.3) < 2**-81, so thresholds farther out round to 0 or 2**80
PRECISION = 256  # fractional bits of the arithmetic behind the thresholds
PI = Fraction(
    314159265358979323846264338327950288419716939937510582097494459230781640628620899, 10**80
)  # off by less than 1e-80 < 2**-265


@dataclass(frozen=True)
class LatticeLaw:
    """N(0, sigma²) rounded to multiples of ``1 / levels``.

    Attributes:
        sigma: standard deviation in input units, > 0; exactly the float's value.
        levels: steps in a unit, >= 1.

    Raises:
        ValueError: an image with its noise would not fit 16 bits.
    """

    sigma: float
    levels: int

    def __post_init__(self) -> None:
        if not _fits(self.sigma, self.levels):
            raise ValueError(
                f"sigma {self.sigma:g} is too large for lattice noise of step 1/{self.levels}, which is kept in 16 "
                f"bits; allowed: up to {_largest_sigma(self.levels):.4g}, or --noise float"
            )

    @property
    def reach(self) -> int:
        """The largest \\|K\\| that can be drawn is at most this."""
        return _reach(self.sigma, self.levels)

    @property
    def step(self) -> str:
        """The step in input units, as text: ``1/255``."""
        return f"1/{self.levels}"

    @property
    def total_variation(self) -> float:
        """An upper bound of the distance between the law as drawn and the exact one, for one coordinate.

        A threshold is off by at most 2**-81 of the probability, and so are the two tails that are cut off. Half the sum
        of the differences of ``2 reach + 1`` probabilities and two tails is at most ``(2 reach + 2) 2**-81``.
        """
        return (2 * self.reach + 2) * 2.0 ** -(BITS + 1)

    def thresholds(self) -> tuple[int, ...]:
        """``T_k`` for k = -reach to reach - 1, ascending, in [0, 2**80]; ``-reach`` plus those <= u is K."""
        return _thresholds(self.sigma, self.levels)


def levels_for(sigma: float, grid: int) -> int:
    """Return the steps in a unit: ``grid * 2**k`` with the smallest k that makes sigma at least 64 steps.

    Where that would not fit 16 bits any more, the largest that does (sigma is then fewer steps, which makes the noise
    coarser, not wrong).

    Args:
        sigma: in input units, > 0.
        grid: steps of the images' own grid in a unit: 255 for 8-bit images.

    Raises:
        ValueError: not even the images' own grid fits.
    """
    levels = LatticeLaw(sigma, grid).levels
    while sigma * levels < SMOOTH and _fits(sigma, 2 * levels):
        levels *= 2
    return levels


def noise_share(sigma: float, levels: int, coordinates: int, draws: int) -> float:
    """Return the part of alpha that the law's rounding takes: draws times coordinates times total variation.

    Whatever is decided from ``draws`` noise draws is, under the exact law, wrong with a probability that differs by at
    most so much. Selection draws count as well.

    Args:
        coordinates: numbers in one draw, ``C H W``.
        draws: of one image, selection and estimation.
    """
    return draws * coordinates * LatticeLaw(sigma, levels).total_variation


def alpha_left(alpha: float, share: float) -> float:
    """Return what is left of alpha for the bound, where `noise_share` takes its part.

    Raises:
        ValueError: nothing is left.
    """
    if not share < alpha:
        raise ValueError(
            f"alpha = {alpha:g}: the rounding of the noise's law takes {share:.3g} of it, so nothing is left for the "
            "bound; give a larger alpha, fewer draws, or --noise float"
        )
    return math.nextafter(alpha - share, 0.0) if share else alpha  # downwards, whatever the subtraction rounds


def _reach(sigma: float, levels: int) -> int:
    return math.floor(TAIL * Fraction(sigma) * levels + Fraction(1, 2)) + 1


def _fits(sigma: float, levels: int) -> bool:
    return levels + _reach(sigma, levels) <= MOST


def _largest_sigma(levels: int) -> float:
    return max(0.0, (MOST - levels - 2) / (levels * float(TAIL)))


@lru_cache(maxsize=16)
def _thresholds(sigma: float, levels: int) -> tuple[int, ...]:
    step, reach = Fraction(1, levels) / Fraction(sigma), _reach(sigma, levels)
    upper = [_rounded_normal((k + Fraction(1, 2)) * step) for k in range(reach)]
    # Phi(-x) = 1 - Phi(x), of the rounded values too.
    return (*(2**BITS - t for t in reversed(upper)), *upper)


def _rounded_normal(x: Fraction) -> int:
    """``round(2**80 Phi(x))`` for x >= 0.

    ``Phi(x) = 1/2 + phi(x) (x + x³/3 + x⁵/(3 5) + …)`` and ``1 / phi(x) = sqrt(2 pi) (1 + q + q²/2 + …)``, q = x²/2:
    sums of positive terms, each rounded down to 2**-256. A rounding grows by less than 2**96 on its way to the end, and
    there are fewer than 2**10 of them: the result before its own rounding is off by less than 2**-140.
    """
    if x >= TAIL:
        return 1 << BITS
    one = 1 << PRECISION
    point = (x.numerator << PRECISION) // x.denominator
    square = point * point >> PRECISION
    odd = odd_sum = point
    power = power_sum = one
    n = 0
    while odd or power:
        n += 1
        odd = (odd * square >> PRECISION) // (2 * n + 1)
        power = (power * square >> PRECISION) // (2 * n)
        odd_sum, power_sum = odd_sum + odd, power_sum + power
    scaled = odd_sum * one // power_sum * one // _root_of_two_pi()
    return (1 << (BITS - 1)) + ((scaled + (1 << (PRECISION - BITS - 1))) >> (PRECISION - BITS))


@lru_cache(maxsize=1)
def _root_of_two_pi() -> int:
    return math.isqrt((2 * PI.numerator << 2 * PRECISION) // PI.denominator)
