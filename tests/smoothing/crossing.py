"""What tests of stopping rules measure by: the exact probability that a path of counts reaches a boundary."""

from collections.abc import Sequence

import numpy as np

from acr_ray.smoothing.spending import _drawn, _trimmed


def crossing(p: float, looks: Sequence[int], counts: Sequence[int]) -> float:
    """Exact probability, under p, of reaching ``counts[k]`` at one of the looks.

    Errs upwards, by less than 1e-13.
    """
    low, mass, used, before = 0, np.ones(1), 0.0, 0
    for n, count in zip(looks, counts, strict=True):
        low, mass, lost = _drawn(low, mass, n - before, p)
        keep = min(max(int(count) - low, 0), len(mass))
        used += lost + float(mass[keep:].sum())
        before, mass = n, mass[:keep]
        if not len(mass):
            break
        low, mass, lost = _trimmed(low, mass)
        used += lost
    return min(used, 1.0)
