"""Discard and reweigh against per-sample references."""

import math

import numpy as np
import pytest
from scipy import stats

from acr_ray.training.population import kept_by_p_a, radius_weights


def reference_weight(count, draws, p_min, alpha):
    """One sample, from the text: clip p_A to [p_min, 1], floor(draws·p), one-sided bound, Φ⁻¹."""
    p = min(max(count / draws, p_min), 1.0)
    k = math.floor(round(draws * p, 6))
    if k == 0:
        return 0.0
    low = stats.binomtest(k, draws, alternative="greater").proportion_ci(1 - alpha, "exact").low
    return max(float(stats.norm.ppf(low)), 0.0)


@pytest.mark.parametrize("draws, p_min, alpha", [(16, 0.75, 0.1), (16, 0.0, 0.1), (25, 0.28, 0.2), (100, 0.9, 0.001)])
def test_weights_equal_the_reference(draws, p_min, alpha):
    counts = np.arange(draws + 1)
    expected = [reference_weight(k, draws, p_min, alpha) for k in counts]
    np.testing.assert_allclose(radius_weights(counts, draws, p_min, alpha), expected, rtol=1e-9, atol=1e-12)


def test_with_the_papers_settings_everybody_has_a_chance_and_easy_samples_more():
    weights = radius_weights(np.arange(17), 16, 0.75, 0.1)
    assert weights.min() > 0 and len(set(weights[:13])) == 1
    assert (np.diff(weights[12:]) > 0).all()


@pytest.mark.parametrize("p_t", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
@pytest.mark.parametrize("draws", [10, 50, 100])
def test_the_threshold_itself_is_kept(p_t, draws):
    kept = kept_by_p_a(np.arange(draws + 1), draws, p_t)
    assert kept.tolist() == [k >= round(p_t * draws) for k in range(draws + 1)]
