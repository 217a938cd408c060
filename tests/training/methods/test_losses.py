"""Every method's loss and its gradients against a slow reference written from the formula, in float64."""

import pytest
import torch

from acr_ray.settings import load_recipe
from acr_ray.settings.methods import (
    CatrsSettings,
    ConsistencySettings,
    MacerSettings,
    SmoothAdvSettings,
    SmoothMixSettings,
    StabilitySettings,
)
from acr_ray.training.methods import build_method
from acr_ray.training.methods.catrs import Catrs
from acr_ray.training.methods.consistency import Consistency
from acr_ray.training.methods.gaussian import Gaussian
from acr_ray.training.methods.macer import Macer
from acr_ray.training.methods.smoothadv import SmoothAdv
from acr_ray.training.methods.smoothmix import SmoothMix
from acr_ray.training.methods.stability import Stability
from tests.training.methods import slow
from tests.training.methods.making import batch, gradients, network, part

MIX = SmoothMixSettings(steps=3, step_size=0.7, eta=2.0)
CASES = {
    "gaussian": (lambda: Gaussian(), slow.gaussian),
    "pgd": (lambda s: SmoothAdv(s), slow.smoothadv, SmoothAdvSettings(steps=3, epsilon=0.8)),
    "warming": (lambda s: SmoothAdv(s), slow.smoothadv, SmoothAdvSettings(steps=2, epsilon=0.8, warmup=40)),
    "ddn": (lambda s: SmoothAdv(s), slow.smoothadv, SmoothAdvSettings(attack="ddn", steps=4, epsilon=0.8, gamma=0.2)),
    "consistency": (lambda s: Consistency(s), slow.consistency, ConsistencySettings(weight=7.0, eta=0.4)),
    "macer": (lambda s: Macer(s, ()), slow.macer, MacerSettings(weight=5.0, gamma=3.0, beta=2.0)),
    "macer-sharp": (lambda s: Macer(s, ()), slow.macer, MacerSettings(weight=5.0, gamma=8.0, beta=300.0)),
    "smoothmix": (lambda s: SmoothMix(s), slow.smoothmix, MIX),
    "one-step": (lambda s: SmoothMix(s), slow.smoothmix, MIX.change({"one_step": True, "warmup": 40})),
    "catrs": (lambda s: Catrs(s), lambda *a: slow.catrs(*a)[0], CatrsSettings(steps=3, epsilon=0.6, weight=1.5)),
    "stability": (lambda s: Stability(s), slow.stability, StabilitySettings(weight=3.0)),
}


def compare(case, given, model):
    make, reference, *settings = CASES[case]
    found = make(*settings).loss(model, given).loss
    expected = reference(model, given, *settings)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(gradients(found, model), gradients(expected, model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    return found


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_slow_reference(case, m):
    model = network()
    compare(case, batch(model, m=m), model)


@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_with_nothing_correct_and_with_everything(case, right):
    model = network(seed=3)
    compare(case, batch(model, images=3, m=3, right=right, seed=5), model)


def test_macer_without_any_correct_image_is_the_cross_entropy_of_the_mean():
    model = network()
    given = batch(model, right=0.0)
    plain = Macer(MacerSettings(weight=0.0), ()).loss(model, given)
    full = Macer(MacerSettings(weight=9.0), ()).loss(model, given)
    assert float(full.logs["macer_counted"]) == 0 and torch.equal(full.loss, plain.loss)


def test_macer_leaves_out_infinite_radii():
    model = network(scale=400.0)
    found = Macer(MacerSettings(beta=100.0), ()).loss(model, batch(model, m=1, right=1.0))
    assert float(found.logs["macer_counted"]) < 1
    assert torch.isfinite(found.loss) and all(torch.isfinite(g).all() for g in gradients(found.loss, model))


def test_macer_waits_for_the_first_milestone():
    model, settings = network(), MacerSettings(deferred=True)
    early, late = (batch(model, progress=progress) for progress in (19.99, 20.0))
    without = Macer(MacerSettings(weight=0.0), ()).loss(model, early).loss
    assert torch.equal(Macer(settings, (20, 40)).loss(model, early).loss, without)
    assert Macer(settings, (20, 40)).loss(model, late).loss > without


def sure(given):
    """K uniform numbers of a batch's images are compared with this share of right copies."""
    return slow.catrs(given.network, given, CatrsSettings(steps=1, epsilon=0.1))[1]


def test_catrs_with_all_none_and_some_confident():
    model = network(scale=30.0)
    everyone = batch(model, right=1.0, m=2, sigma=0.01)
    nobody = batch(model, right=0.0, m=2, sigma=0.01)
    some = batch(network(), images=12, m=2)
    assert all(sure(everyone)) and not any(sure(nobody)) and 0 < sum(sure(some)) < 12
    for given in (everyone, nobody, some):
        compare("catrs", given, given.network)
    weights = [Catrs(CatrsSettings(weight=w, steps=1)).loss(model, nobody).loss for w in (0.0, 9.0)]
    assert torch.equal(*weights), "where nobody is confident the worst noise must not count"


def test_catrs_doubles_its_radius_from_the_given_epoch():
    model = network()
    given = batch(model, right=1.0, m=1)
    single, double = CatrsSettings(epsilon=0.3, double_from=13), CatrsSettings(epsilon=0.3, double_from=12)
    wide = Catrs(CatrsSettings(epsilon=0.6)).loss(model, given).loss
    assert torch.equal(Catrs(double).loss(model, given).loss, wide)
    assert not torch.equal(Catrs(single).loss(model, given).loss, wide)


@pytest.mark.parametrize("case", CASES)
def test_workers_that_share_a_step_get_its_loss(case):
    """The mean over inputs of the parts is the whole: no normaliser depends on who has which image."""
    make, _, *settings = CASES[case]
    model = network()
    whole = batch(model, images=7)
    method = make(*settings)
    shares = [(0, 3), (3, 4), (4, 7)]
    parts = [method.loss(model, part(whole, *share)).loss * (share[1] - share[0]) / 7 for share in shares]
    torch.testing.assert_close(sum(parts), method.loss(model, whole).loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["smoothmix", "catrs"])
def test_chance_repeats_itself_and_differs_between_images(name):
    model = network()
    given = batch(model)
    drawn = given.uniforms(5)
    assert torch.equal(drawn, given.uniforms(5)) and len(drawn.unique()) == drawn.numel()
    assert torch.equal(drawn[2:4], part(given, 2, 4).uniforms(5))
    method = build_method(load_recipe(f"digits-{name}"))
    assert torch.equal(method.loss(model, given).loss, method.loss(model, given).loss)


def test_loss_is_finite_in_float32_where_the_network_is_certain():
    """Logits a thousand apart: probabilities that are 0 and 1 in float32."""
    model = network(scale=3000.0).float()
    exact = batch(network(scale=3000.0))
    given = exact.__class__(
        exact.images.float(),
        exact.labels,
        exact.noise.float(),
        exact.m,
        exact.sigma,
        exact.progress,
        model,
        exact.seeds,
        exact.classes,
    )
    for case, (make, _, *settings) in CASES.items():
        found = make(*settings).loss(model, given).loss
        assert torch.isfinite(found), case
        assert all(torch.isfinite(g).all() for g in gradients(found, model)), case
