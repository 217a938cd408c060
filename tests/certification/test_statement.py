"""Statements about a whole data set: valid exactly, in the worst case, and by simulation of real certificates."""

import numpy as np
import pytest
from scipy import stats

from acr_ray.certification.statement import statement, statements
from acr_ray.smoothing.bounds import lower_bound, radius


def claimed(certified: int, images: int, alpha: float, rho: float, population: bool = False):
    radii = np.where(np.arange(images) < certified, 0.5, 0.0)
    return statement(radii, np.ones(images, bool), alpha, 0.25, rho, population=population)


@pytest.mark.parametrize("alpha, rho", [(0.001, 0.01), (0.05, 0.05), (0.3, 0.001)])
@pytest.mark.parametrize("images", [1, 12, 60])
def test_of_these_images_exactly(images, alpha, rho):
    """The worst case: every robust image is certified with probability c, every other with alpha."""
    share = np.array([claimed(s, images, alpha, rho).robust for s in range(images + 1)])
    for robust in range(images + 1):
        for c in (0.0, 0.7, 1.0):
            right = stats.binom.pmf(np.arange(robust + 1), robust, c)
            false = stats.binom.pmf(np.arange(images - robust + 1), images - robust, alpha)
            certified = np.convolve(right, false)
            assert certified[share > robust / images + 1e-12].sum() <= rho * (1 + 1e-9)


@pytest.mark.parametrize("alpha, rho", [(0.001, 0.01), (0.05, 0.05), (0.3, 0.001)])
@pytest.mark.parametrize("images", [1, 12, 60])
def test_of_the_population_exactly(images, alpha, rho):
    share = np.array([claimed(s, images, alpha, rho, population=True).robust for s in range(images + 1)])
    for truth in np.linspace(0, 1, 101):
        certified = stats.binom.pmf(np.arange(images + 1), images, truth + (1 - truth) * alpha)
        assert certified[share > truth + 1e-12].sum() <= rho * (1 + 1e-9)


def test_taking_the_certified_share_at_its_word_is_caught():
    """What the statement is for: with alpha = 0.05 and no robust image the certified share itself is nearly always
    too high."""
    certified = stats.binom.pmf(np.arange(61), 60, 0.05)
    assert certified[1:].sum() > 0.9


@pytest.mark.parametrize(
    "images, alpha, rho", [(10_000, 0.001, 0.001), (500, 0.001, 0.05), (7, 0.2, 0.9), (3, 0.5, 1e-12)]
)
def test_wrong_certificates_are_the_least_quantile(images, alpha, rho):
    q = claimed(images, images, alpha, rho).wrong
    assert stats.binom.sf(q, images, alpha) <= rho
    assert q == 0 or stats.binom.sf(q - 1, images, alpha) > rho


def test_simulated_certificates_at_several_radii():
    """Images whose p_A lies just below what the radius needs, so that as many certificates are wrong as can be."""
    rng, sigma, n, alpha, rho, at = np.random.default_rng(0), 0.5, 400, 0.05, 0.1, (0.0, 0.25, 0.5)
    p = np.repeat(stats.norm.cdf(np.array([-0.001, 0.249, 0.499, 0.8]) / sigma), 25)
    truth = [np.mean(sigma * stats.norm.ppf(p) >= r) for r in at]
    failed = failed_all = 0
    for _ in range(2000):
        held = radius(lower_bound(rng.binomial(n, p), n, alpha), sigma)
        found = statements(held, np.ones(p.size, bool), alpha, at, rho)
        wrong = [s.robust > t + 1e-12 for s, t in zip(found, truth, strict=True)]
        failed, failed_all = failed + wrong[1], failed_all + any(wrong)
    assert failed_all / 2000 <= rho + 5 * np.sqrt(rho * (1 - rho) / 2000)


def test_the_fields_numbers():
    """80 % certified of 10 000 images at alpha = 0.001 is at least 79.8 % at 99.9 %; a little less of all images."""
    here = claimed(8000, 10_000, 0.001, 0.001)
    assert (here.certified, here.images, here.wrong) == (8000, 10_000, 21) and here.robust == 0.7979
    assert str(here).startswith(
        "with probability 0.999, at least 79.79 % of these 10000 images are robust at radius 0.25"
    )
    everywhere = claimed(8000, 10_000, 0.001, 0.001, population=True)
    assert 0.785 < everywhere.robust < 0.79 and "population" in str(everywhere)


def test_what_counts_as_certified():
    radii, correct = [0.0, 0.25, 0.3, 0.9], [True, True, False, True]
    at = {r: statement(radii, correct, 0.001, r, 0.01).certified for r in (0.0, 0.25, 0.26, 1.0)}
    assert at == {0.0: 2, 0.25: 2, 0.26: 1, 1.0: 0}


def test_of_the_population_rho_is_shared_between_radii():
    radii, correct = np.full(100, 0.5), np.ones(100, bool)
    both = statements(radii, correct, 0.01, (0.1, 0.2), 0.1, population=True)
    alone = statement(radii, correct, 0.01, 0.1, 0.05, population=True)
    assert [s.robust for s in both] == [alone.robust] * 2
    here = statements(radii, correct, 0.01, (0.1, 0.2), 0.1)
    assert [s.rho for s in here] == [0.1, 0.1]


@pytest.mark.parametrize(
    "change",
    [{"radii": []}, {"radii": [[0.1]]}, {"radii": [-1.0]}, {"radii": [np.nan]}, {"alpha": 0.0}, {"alpha": 1.0}]
    + [{"rho": 0.0}, {"rho": 1.0}, {"radius": -0.1}, {"radius": np.inf}, {"correct": [True, False]}],
)
def test_nonsense_is_refused(change):
    given = {"radii": [0.5], "correct": [True], "alpha": 0.001, "radius": 0.25, "rho": 0.01} | change
    with pytest.raises(ValueError):
        statement(**given)
    with pytest.raises(ValueError, match="at least one radius"):
        statements([0.5], [True], 0.01, [], 0.01)
