"""What many certificates say together: a lower bound on the share of images that are truly robust.

Each certificate is wrong with probability at most alpha, so among thousands some are: "60 % certified" is not by itself
a statement about robustness at any confidence. numpy and scipy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from acr_ray.smoothing.bounds import lower_bound


@dataclass(frozen=True)
class Statement:
    """With probability at least ``1 - rho``, at least the share ``robust`` is robust at ``radius``.

    Robust: the smoothed classifier's class is the label, everywhere within ``radius`` of the image.

    Attributes:
        radius: l2, input units.
        images: certificates behind the statement.
        certified: how many are correct with at least that radius.
        wrong: how many of the certificates, at most, are wrong (with the probability kept for that).
        robust: share of images, in [0, 1]; of these images, or of the population they were drawn from.
        rho: in (0, 1).
        population: whether it speaks of the population.
    """

    radius: float
    images: int
    certified: int
    wrong: int
    robust: float
    rho: float
    population: bool

    def __str__(self) -> str:
        share = np.floor(self.robust * 1e4) / 1e2
        whom = "of the population the images were drawn from" if self.population else f"of these {self.images} images"
        chance = np.floor((1 - self.rho) * 1e6) / 1e6
        return f"with probability {chance:g}, at least {share:.2f} % {whom} are robust at radius {self.radius:g}"


def statement(
    radii: ArrayLike, correct: ArrayLike, alpha: float, radius: float, rho: float, *, population: bool = False
) -> Statement:
    """The statement at one radius.

    *These images.* The images are fixed, the noise is random. Let T be the images that are truly robust at the radius
    and S the certified ones. An image outside T is in S only if its bound is wrong: with probability at most alpha,
    and independently of the others, since every image has noise of its own. So ``|S \\ T|`` is stochastically at most
    Binomial(images, alpha), and with q that distribution's (1 - rho)-quantile, ``|T| >= |S| - |S \\ T| >= |S| - q``
    with probability at least 1 - rho.

    *The population.* The images are also drawn, independently, from a population with a share t of robust ones. An
    image is certified with probability at most ``t + (1 - t) alpha``: those are independent, so the Clopper-Pearson
    bound L of ``|S|`` out of all images at confidence 1 - rho satisfies ``t + (1 - t) alpha >= L``, hence
    ``t >= (L - alpha) / (1 - alpha)``, with probability at least 1 - rho. (Splitting rho between the number of wrong
    certificates and the choice of images would give less.) It means nothing for images that were chosen otherwise,
    by hand or for their radius.

    Both hold for one radius named beforehand; for several at once give each its part of rho, as `statements` does.

    Args:
        radii: certified radius of each image in input units, 0 if there is none, (M,).
        correct: whether the certified class is the label, (M,); incomplete runs must be filled up with False.
        alpha: error probability of each certificate, in (0, 1).
        radius: >= 0; at 0 the claim is that the class is right.
        rho: probability that the statement is wrong, in (0, 1).
        population: of the population, not of these images.

    Raises:
        ValueError: no images, shapes that differ, or a value out of its range.
    """
    radii, correct = np.asarray(radii, dtype=np.float64), np.asarray(correct, dtype=bool)
    if radii.ndim != 1 or radii.shape != correct.shape or not radii.size:
        raise ValueError(f"radii {radii.shape} and correct {correct.shape} must be one value an image, at least one")
    if not 0 < alpha < 1 or not 0 < rho < 1:
        raise ValueError(f"alpha {alpha} and rho {rho} must lie in (0, 1)")
    if not 0 <= radius < np.inf or np.isnan(radii).any() or (radii < 0).any():
        raise ValueError("radii must be numbers >= 0")
    images = radii.size
    certified = int((correct & (radii > 0) & (radii >= radius)).sum())
    wrong = int(stats.binom.isf(rho, images, alpha))  # the least q with P[X > q] <= rho
    if population:
        bound = float(lower_bound(certified, images, rho))
        robust = max(0.0, (bound - alpha) / (1 - alpha))
    else:
        robust = max(0, certified - wrong) / images
    return Statement(radius, images, certified, wrong, robust, rho, population)


def statements(
    radii: ArrayLike, correct: ArrayLike, alpha: float, at: ArrayLike, rho: float, *, population: bool = False
) -> list[Statement]:
    """Statements at several radii that hold together with probability at least ``1 - rho``.

    Of these images one event covers all radii: a certificate is one claim, wrong or not, and with at most q wrong
    ones in all every radius loses at most q. Of the population rho is shared evenly (union bound).

    Args:
        at: radii named beforehand, >= 0, at least one.
    """
    at = np.atleast_1d(np.asarray(at, dtype=np.float64))
    if not at.size:
        raise ValueError("name at least one radius")
    each = rho / at.size if population else rho
    return [statement(radii, correct, alpha, float(r), each, population=population) for r in at]
