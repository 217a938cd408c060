"""training.noise = lattice: the same sampler as certification's, for steps and for estimates of p_A."""

import numpy as np
import pytest
import torch

from acr_ray.data import open_images
from acr_ray.settings import UserError, derive_seed, load_recipe
from acr_ray.smoothing.lattice_law import LatticeLaw
from acr_ray.smoothing.lattice_reference import number
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.noise import LatticeTrainingNoise

SHORT = {"training.epochs": 2, "training.e_t": 1, "discard.draws": 20, "discard.enabled": True}


def trained(images, **changes):
    recipe = load_recipe("digits").change({**SHORT, "training.milestones": (), **changes})
    trainer = Trainer(recipe, images, 3, Group())
    trainer.run()
    return trainer


def test_noise_of_a_step_is_the_references():
    law = LatticeLaw(0.25, 256)
    found = LatticeTrainingNoise(law, "cpu")(7, 2, np.array([5, 9]), 3, (2, 2, 3))
    assert found.shape == (6, 2, 2, 3) and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for row, position in enumerate((5, 9)):
        key = derive_seed(7, "train", 2, position)
        for draw in range(3):
            expected = [number(law, key, draw, i, 12) / 256 for i in range(12)]
            assert found[3 * row + draw].permute(1, 2, 0).flatten().tolist() == expected


def test_it_trains_and_is_another_run():
    images = open_images("digits", None, "train").subset(range(0, 1297, 20))
    lattice, again, usual = (trained(images, **{"training.noise": noise}) for noise in ("lattice", "lattice", "float"))
    assert lattice.engine.levels == 128 and usual.engine.levels is None
    weights = [[p.detach().clone() for p in one.module.parameters()] for one in (lattice, again, usual)]
    assert all(map(torch.equal, weights[0], weights[1])) and not all(map(torch.equal, weights[0], weights[2]))
    assert all(torch.isfinite(p).all() for p in weights[0])


def test_noise_that_does_not_fit_is_refused_in_one_line():
    images = open_images("digits", None, "train").subset(range(8))
    with pytest.raises(UserError, match="training.noise = lattice: sigma 100 is too large"):
        trained(images, **{"training.noise": "lattice", "training.sigma": 100})
