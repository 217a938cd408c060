"""Passes that images share: the same counts in any company, one shape, as many passes as the draws need."""

import itertools

import numpy as np
import pytest
import torch

from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.smoothing import noise as noises
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.shared import Asked, SharedPasses
from tests.fakes.device import Pretended
from tests.fakes.models import write_digits_checkpoint

LOOKS = [Phase("select", 40, 40), Phase("estimate/1", 23, 23), Phase("estimate/2", 130, 44), Phase("estimate/9", 1, 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return load_checkpoint(str(write_digits_checkpoint(tmp_path_factory.mktemp("m") / "checkpoint", sharper=3)))[0]


@pytest.fixture(scope="module")
def images():
    return open_images("digits", None, "test").subset(range(12))


def engine_of(model, dtype="float32"):
    return SamplingEngine(prepare(model, dtype=dtype), 10, 0.5, levels=128)


def asked_of(images):
    """Looks of many sizes of single images, and selection draws of several at once."""
    groups = [(0, 1, 2), (3,), (4,), (5,), (6, 7), (8,)]
    return [
        Asked(tuple(images.names[i] for i in group), phase, 0, phase.blocks)
        for group, phase in zip(groups, itertools.cycle(LOOKS))  # noqa: B905  # the looks go round
    ] + [Asked((images.names[3],), LOOKS[2], 1, 3)]


def count(shared, asked, images):
    names = list(dict.fromkeys(name for a in asked for name in a.names))
    placed = shared._noise.placed(images.load([images.names.index(name) for name in names], None))
    return shared.count(asked, placed, [names.index(name) for a in asked for name in a.names], 7)


def plain(engine, a, images):
    x = images.load([images.names.index(name) for name in a.names], None)
    return engine.count_images(x, a.names, 7, a.phase, a.first, a.stop)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 16, 100])
def test_counts_are_those_of_passes_of_ones_own_in_any_company(model, images, rows, dtype):
    engine, asked = engine_of(model, dtype), asked_of(images)
    shared = SharedPasses(engine, rows)
    found = count(shared, asked, images)
    for a, counts in zip(asked, found, strict=True):
        assert counts.dtype == np.int64 and (counts.sum(1) == a.draws).all()
        assert np.array_equal(counts, plain(engine, a, images))
        assert np.array_equal(counts, count(SharedPasses(engine, rows), [a], images)[0])
    assert len({tuple(row) for counts in found for row in counts}) > 5
    other_way = count(shared, asked[::-1], images)[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(found, other_way, strict=True))


def test_every_pass_has_one_shape_and_only_the_last_is_not_full(model, images):
    engine, asked, shapes = engine_of(model), asked_of(images), []
    engine.model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    shared = SharedPasses(engine, 64)
    count(shared, asked, images)
    rows = sum(a.rows for a in asked)
    assert rows == 120 + 23 + 130 + 1 + 80 + 23 + 86 == shared.drawn
    assert shapes == [(64, 1, 8, 8)] * -(-rows // 64) and shared.passes == len(shapes) == 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_device_draws_the_same_and_is_waited_for_once(model, images, dtype, monkeypatch):
    asked = asked_of(images)
    expected = count(SharedPasses(engine_of(model, dtype), 50), asked, images)
    monkeypatch.setattr(noises, "with_numpy", lambda device: False)
    monkeypatch.setattr(noises, "compiler_problem", lambda device: "none here")
    shared, waits = SharedPasses(engine_of(model, dtype), 50), []
    for some in (asked[:1], asked):
        with Pretended() as seen:
            found = count(shared, some, images)
        assert not seen.float64 and not seen.mixed
        waits.append(sum(seen.waits.values()))
    assert waits == [0, 0], "the counts' way back is the only wait"
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


class Breaking(torch.nn.Module):
    """Answers NaN to rows that are bright; none of the others notices."""

    def forward(self, x):
        logits = torch.eye(10)[x.flatten(1).sum(1).abs().long() % 10].clone()
        return torch.where(x.flatten(1).mean(1, keepdim=True) > 50, torch.nan, logits)


def test_the_image_that_breaks_the_model_is_named():
    engine = SamplingEngine(Breaking(), 10, 0.5, levels=128)
    shared, phase = SharedPasses(engine, 30), Phase("estimate/2", 20, 20)
    x = torch.stack([torch.full((1, 8, 8), value) for value in (0.2, 100.0, 0.4)])
    asked = [Asked((name,), phase, 0, 1) for name in ("dark", "bright", "grey")]
    with pytest.raises(BrokenModelError, match=r"\(image bright, estimate/2 blocks 0 to 0\)"):
        shared.count(asked, engine.noise.placed(x), [0, 1, 2], 0)
    assert shared.count(asked[::2], engine.noise.placed(x[::2]), [0, 1], 0)[1].sum() == 20


def test_float_noise_has_no_shared_passes():
    with pytest.raises(ValueError, match="lattice noise"):
        SharedPasses(SamplingEngine(Breaking(), 10, 0.5), 30)
