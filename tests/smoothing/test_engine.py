"""The sampling engine and the smoothed classifier against closed forms and a slow reference."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from acr_ray.smoothing import decide
from acr_ray.smoothing.bounds import max_radius
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine, evaluating
from acr_ray.smoothing.noise import standard_normal
from acr_ray.smoothing.plan import Phase, phases


class Linear(nn.Module):
    """Class 1 where w·x > c: its p_A and its exact robust radius are known."""

    def __init__(self, weight, threshold):
        super().__init__()
        self.weight, self.threshold = torch.tensor(weight), threshold

    def forward(self, x):
        score = x.flatten(1) @ self.weight - self.threshold
        return torch.stack([-score, score], 1)


class Constant(nn.Module):
    def __init__(self, answer=3, classes=10):
        super().__init__()
        self.answer, self.classes = answer, classes

    def forward(self, x):
        return nn.functional.one_hot(torch.full((len(x),), self.answer), self.classes).float()


FROZEN_NOISE = [1.5219693183898926, -1.1441057920455933, 1.150161623954773, -1.7846531867980957]
FROZEN_SEED = 4906081519010567817
WEIGHT = [0.6, -0.2, 0.5, 0.3]
IMAGE = torch.tensor([0.9, 0.1, 0.8, 0.7]).reshape(1, 2, 2)


def margin(threshold):
    return (float(IMAGE.flatten() @ torch.tensor(WEIGHT)) - threshold) / float(np.linalg.norm(WEIGHT))


def test_linear_classifier_is_certified_within_its_true_radius():
    """At alpha = 0.05 a certificate exceeds the true radius in at most 5 % of runs (exact binomial test)."""
    sigma, alpha, runs, threshold = 0.5, 0.05, 1500, 0.6
    true_radius = margin(threshold)
    wrong = 0
    for run in range(runs):
        smoothed = SmoothedClassifier(Linear(WEIGHT, threshold), 2, sigma, seed=run)
        wrong += smoothed.certify(IMAGE, n0=20, n=200, alpha=alpha).radius > true_radius
    assert stats.binomtest(wrong, runs, alpha, alternative="greater").pvalue > 1e-3
    assert wrong > 0.3 * alpha * runs, "a bound that is never wrong at this alpha is too loose to be Clopper-Pearson"


def test_estimates_agree_with_the_closed_form():
    sigma, threshold, n = 0.5, 0.9, 40_000
    p = stats.norm.cdf(margin(threshold) / sigma)
    found = SmoothedClassifier(Linear(WEIGHT, threshold), 2, sigma).p_a(IMAGE, 1, n=n)
    assert stats.binomtest(round(found * n), n, p).pvalue > 1e-4


@pytest.mark.parametrize("n", [100, 777, 5000])
def test_constant_classifier_reaches_the_ceiling_exactly(n):
    got = SmoothedClassifier(Constant(), 10, 0.25).certify(torch.zeros(1, 4, 4), n=n)
    assert (got.predicted, got.abstained, got.count_top, got.n) == (3, False, n, n)
    assert got.radius == max_radius(0.25, n, 0.001)


def test_counts_equal_a_slow_reference():
    """Block by block, draw by draw, one forward pass each."""
    sigma, name, run_seed, phase = 0.7, "a/1", 11, Phase("estimate", 23, 5)
    model = Linear(WEIGHT, 1.0)
    expected = np.zeros(2, dtype=int)
    for block in range(5):
        generator = np.random.Generator(np.random.PCG64(phase.seed(run_seed, name, block)))
        draws = generator.standard_normal((5, 2, 2, 1), dtype=np.float32)
        for i in range(3 if block == 4 else 5):
            noise = torch.from_numpy(draws[i]).permute(2, 0, 1)
            expected[int(model((IMAGE + sigma * noise)[None]).argmax())] += 1
    engine = SamplingEngine(model, 2, sigma)
    assert engine.count(IMAGE, name, run_seed, phase, 0, 5).tolist() == expected.tolist()
    assert engine.evaluations == 25
    parts = [engine.count(IMAGE, name, run_seed, phase, a, b) for a, b in [(3, 5), (0, 1), (1, 3)]]
    assert sum(parts).tolist() == expected.tolist()


def test_more_draws_extend_fewer():
    smoothed = SmoothedClassifier(Linear(WEIGHT, 1.1), 2, 0.5, block=50)
    few = smoothed.counts(IMAGE, Phase("estimate", 130, 50), "x")
    many = smoothed.counts(IMAGE, Phase("estimate", 170, 50), "x")
    assert few.sum() == 130 and many.sum() == 170 and (many >= few).all()


def test_images_in_one_batch_get_their_own_noise():
    engine = SamplingEngine(Linear(WEIGHT, 1.1), 2, 0.5)
    images = torch.stack([IMAGE, IMAGE * 0.5, IMAGE])
    together = engine.predictions(images, [5, 6, 7], 40)
    alone = torch.cat(
        [engine.predictions(image[None], [seed], 40) for image, seed in zip(images, [5, 6, 7], strict=True)]
    )
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[2])


def test_phases_use_different_noise_and_seeds_are_unique():
    select, estimate = phases(100, 1000, 100)
    seeds = {p.seed(0, name, b) for p in (select, estimate) for name in ("a", "b") for b in range(10)}
    assert len(seeds) == 40
    assert select.block == 100 and estimate.block == 100
    assert phases(100, 1000, 500)[0].block == 100


def test_noise_is_standard_normal_and_frozen():
    noise = standard_normal([1, 2], 2000, (3, 4, 4))
    assert noise.shape == (4000, 3, 4, 4) and noise.is_contiguous(memory_format=torch.channels_last)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    # A change of these numbers, by us or by NumPy, would silently change every certificate's noise.
    assert standard_normal([7], 1, (1, 2, 2)).flatten().tolist() == FROZEN_NOISE
    assert Phase("estimate", 1000, 500).seed(0, "digits/0012", 1) == FROZEN_SEED


def test_engine_leaves_modes_and_statistics_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    model.train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    SamplingEngine(model, 2, 0.5).predictions(IMAGE[None], [1], 8)
    assert model.training and not model[1].training and model[0].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training and not model[1].training


def test_a_model_that_answers_nan_is_not_counted():
    class Nan(Constant):
        def forward(self, x):
            return super().forward(x) * float("nan")

    with pytest.raises(BrokenModelError):
        SmoothedClassifier(Nan(), 10, 0.5).p_a(IMAGE, 1, n=5)


def test_wrong_number_of_classes_is_an_error():
    with pytest.raises(ValueError, match="not"):
        SmoothedClassifier(Constant(), 9, 0.5).p_a(IMAGE, 1, n=5)


def test_certify_abstains_without_a_majority():
    got = decide.certify([3, 7], [500, 500], 0.5, 0.001)
    assert (got.predicted, got.abstained, got.radius) == (1, True, 0.0)


def test_certify_counts_the_selected_class_only():
    got = decide.certify([9, 1], [10, 990], 0.5, 0.001)
    assert (got.predicted, got.abstained, got.count_top) == (0, True, 10)


def test_predict_follows_the_binomial_test():
    assert decide.predict([60, 40, 0], 0.001) == decide.ABSTAIN
    assert decide.predict([5, 95, 0], 0.001) == 1
    for first in range(50, 101):
        expected = 0 if stats.binomtest(first, 100, 0.5).pvalue <= 0.05 else decide.ABSTAIN
        assert decide.predict([first, 100 - first], 0.05) == expected


def test_predict_is_rarely_wrong():
    """P[answer is not the top class] <= alpha, for a class that is just ahead."""
    rng = np.random.default_rng(0)
    answers = [decide.predict(rng.multinomial(60, [0.52, 0.48]), 0.05) for _ in range(4000)]
    assert stats.binomtest(answers.count(1), 4000, 0.05, alternative="greater").pvalue > 1e-3
