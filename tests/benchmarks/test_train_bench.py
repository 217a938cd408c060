"""jobs.bench train: what it times passes the rows that it should, and the plain step takes the same step."""

import json
import socket

import numpy as np
import pytest

from acr_ray.settings.recipe import AttackSettings
from jobs.benchmarks import train, train_works
from jobs.benchmarks.processes import Worker, together
from tests.fakes.jobs import run

M, T, BATCH = 4, 3, 64


@pytest.fixture
def weights():
    recipe = train.recipe_of("digits_resnet", (M, T, 0.25, 0.25, BATCH), "float32", False, BATCH)
    train_works.set_up(recipe.model_dump(mode="json"), "cpu", 256)
    return train_works.learn(10)


def test_ours_and_the_unavoidable_pass_what_the_attack_leaves_active(weights):
    counter = train_works.STATE["trainer"].passes
    counter.take()
    _, active, marks = train_works.ours(3, weights)
    assert BATCH >= active[0] >= active[1] >= active[2] > 0
    assert counter.take() == (2 * BATCH + active[0] + active[1], 2 * BATCH + active[0] + active[1])
    train_works.unavoidable(active)
    assert counter.take() == (2 * BATCH + active[0] + active[1], BATCH + sum(active))
    again = train_works.ours(3, weights)
    assert again[1] == active and again[2] == marks, "a measured step begins with the given weights"


def test_the_plain_step_passes_everything_and_learns_as_much(weights, monkeypatch):
    rows = []
    model, _ = train_works._plain_model()
    model.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    _, plain = train_works.plain(3, weights)
    assert rows == [BATCH] * (2 * T + 1)
    _, _, ours = train_works.ours(3, weights)
    before = [float(value.astype("float64").sum()) for name, value in weights.items() if name.endswith("weight")]
    assert len(plain) == len(ours) and len(before) > 0
    # Other noise, so other steps; the sums move by the same order.
    assert sum(abs(a - b) for a, b in zip(plain, ours, strict=True)) < 0.2 * sum(map(abs, plain))
    assert train_works.STATE["trainer"].recipe.attack == AttackSettings(enabled=True, steps=T, epsilon=0.25)


@pytest.mark.slow
def test_two_workers_share_a_batch_and_take_the_same_step():
    recipe = train.recipe_of("digits_resnet", (M, T, 0.25, 0.25, BATCH), "float32", False, BATCH)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        given = {"recipe": recipe.model_dump(mode="json"), "device": "cpu", "images": 64, "world": 2}
        given["port"] = probe.getsockname()[1]
    with Worker(train.WORKS, {}) as one, Worker(train.WORKS, {}) as other:
        together((one, "set_up", given | {"rank": 0}), (other, "set_up", given | {"rank": 1}))
        before = together((one, "_mark", {}), (other, "_mark", {}))
        start = one.call("weights")
        shares = together((one, "_batch", {"number": 1}), (other, "_batch", {"number": 1}))
        assert sorted(np.concatenate([share[0] for share in shares])) == list(range(BATCH // M, 2 * BATCH // M))
        marks = {}
        for way in ("waiting", "apart", "shared"):
            together(*((worker, "throughput", {"steps": 2, "way": way}) for worker in (one, other)))
            marks[way] = together((one, "_mark", {}), (other, "_mark", {}))
            together((one, "_reset", {"weights": start}), (other, "_reset", {"weights": start}))
    assert marks["shared"][0] == marks["shared"][1] != before[0], "gradients were exchanged"
    assert marks["apart"][0] != marks["apart"][1], "nothing was exchanged"
    assert marks["waiting"] == marks["apart"], "waiting is all that was done together"


@pytest.mark.slow
def test_the_command_ends_with_one_json_object():
    printed, _ = run("bench", "train", "--quick")
    found = json.loads(printed.splitlines()[-1])
    for name in ("vs_plain", "share_of_unavoidable"):
        assert set(found[name]) == {"median", "min", "max", "runs"}
    assert found["models"]["cifar_resnet20"]["active"][0]["median"] >= train.LEAST_CORRECT
    assert found["vs_plain"]["max"] > 1.2 and found["share_of_unavoidable"]["max"] > 0.7
