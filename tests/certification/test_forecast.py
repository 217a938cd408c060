"""Plans: the forecast agrees with what the rules then do, and looks at no noise of the run."""

from __future__ import annotations

import numpy as np
import pytest

from acr_ray.certification.forecast import CHOICES, choose_pilot, forecasts
from acr_ray.cli.commands import certify
from acr_ray.cli.session import RunOptions
from acr_ray.settings import CertifySettings
from acr_ray.smoothing.bounds import lower_bound, radius
from tests.fakes.models import write_digits_checkpoint

SETTINGS = CertifySettings(sigma=0.5, dataset="digits", n=2000, radii=(0.0, 0.25, 0.5))


def population(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities of images with label 0, half of them clear and half not."""
    rng = np.random.default_rng(seed)
    p = np.where(np.arange(images)[:, None] % 2, rng.dirichlet([30, 1, 1], images), rng.dirichlet([5, 3, 3], images))
    return p, np.zeros(images, dtype=np.int64)


def test_a_forecast_agrees_with_the_rule_on_the_true_probabilities() -> None:
    p, labels = population(150)
    rng = np.random.default_rng(1)
    pilot = np.array([rng.multinomial(2000, row) for row in p])
    by_choice = {(f.stopping, f.certificate): f for f in forecasts(SETTINGS, pilot, labels, repetitions=2)}
    counts = np.array([rng.multinomial(2000, row) for row in p])
    selected = np.array([rng.multinomial(100, row).argmax() for row in p])
    bound = lower_bound(counts[np.arange(len(p)), selected], 2000, 0.001)
    held = np.where(selected == 0, radius(bound, 0.5), 0.0)
    fixed = by_choice["fixed", "one-class"]
    assert fixed.draws == 2100
    assert fixed.acr == pytest.approx(held.mean(), abs=0.03)
    for said, r in zip(fixed.certified_accuracy, SETTINGS.radii, strict=True):
        assert said == pytest.approx(((held > 0) & (held >= r)).mean(), abs=0.08)
    assert by_choice["radii", "one-class"].draws < 1500
    assert by_choice["fixed", "two-class"].acr > fixed.acr


def test_the_same_pilot_gives_the_same_forecast_and_all_rules_are_in_it() -> None:
    p, labels = population(20)
    pilot = (200 * p).astype(np.int64)
    first, second = (forecasts(SETTINGS, pilot, labels, repetitions=1) for _ in range(2))
    assert first == second and [(f.stopping, f.certificate) for f in first] == list(CHOICES)


def test_the_error_says_how_few_images_there_were() -> None:
    p, labels = population(40)
    pilot = (200 * p).astype(np.int64)
    few = forecasts(SETTINGS, pilot[:10], labels[:10], 1)[0].errors
    many = forecasts(SETTINGS, np.tile(pilot, (4, 1)), np.tile(labels, 4), 1)[0].errors
    assert max(few) > 2 * max(many) > 0


def test_the_pilot_is_spread_evenly() -> None:
    assert choose_pilot(5, 100) == [0, 1, 2, 3, 4]
    chosen = choose_pilot(10_000, 100)
    assert len(chosen) == 100 and chosen[0] == 0 and chosen[-1] == 9999 and max(np.diff(chosen)) <= 102


def test_a_plan_writes_nothing_and_needs_no_folder(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = str(write_digits_checkpoint(tmp_path / "model"))
    before = sorted(tmp_path.rglob("*"))
    plan = certify.plan(checkpoint, RunOptions(out=None), settings={"max_images": 12, "n": 500})
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan.images, plan.pilot_images, plan.actors) == (12, 12, 1) and plan.rate > 0
    assert plan.seconds(plan.forecasts[0]) == pytest.approx(12 * 600 / plan.rate)
    told = capsys.readouterr().out
    assert "nothing was written" in told and told.count("two-class") == 2
    twice = certify.plan(checkpoint, RunOptions(out=None), settings={"max_images": 12, "n": 500})
    assert twice.forecasts == plan.forecasts
