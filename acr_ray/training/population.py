"""Parts 1 and 2 of the paper's recipe as pure functions of counts: who stays, and who is drawn how often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from acr_ray.smoothing.bounds import lower_bound


def kept_by_p_a(counts: NDArray[np.int64], draws: int, p_t: float) -> NDArray[np.bool_]:
    """Return which samples are not hard: ``counts / draws >= p_t``.

    Args:
        counts: noise draws that got the sample's own label, ``(N,)`` in [0, draws].
        draws: noise draws of each sample, >= 1.
        p_t: threshold in [0, 1].
    """
    return counts / draws >= p_t


def radius_weights(counts: NDArray[np.int64], draws: int, p_min: float, alpha: float) -> NDArray[np.float64]:
    """Sampling weight of each sample: its approximate certified radius at σ = 1.

    ``Φ⁻¹(CP(floor(draws·clip(p̂_A, p_min, 1))))`` with the one-sided Clopper-Pearson lower bound at ``alpha``. Where
    that is negative (a low ``p_min`` with few draws) the weight is 0.

    Args:
        counts: as in `kept_by_p_a`.
        p_min: in [0, 1]; no sample counts as harder than this.
        alpha: error probability in (0, 1).

    Returns:
        float64 ``(N,)`` >= 0, not normalised.
    """
    # 1e-9 keeps a product like 0.28 * 25 = 7.000000000000001 or 6.999999999999999 on the whole number it stands for.
    clipped = np.floor(draws * np.clip(counts / draws, p_min, 1.0) + 1e-9)
    return np.maximum(ndtri(lower_bound(clipped, draws, alpha)), 0.0)
