"""Trunks: what they depend on, who trains them, forks bit for bit, and what all of it costs."""

import json
from dataclasses import replace

import pytest
from safetensors.numpy import load_file

from acr_ray.data import open_images
from acr_ray.settings import load_recipe
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.workers import Workers
from acr_ray.tuning.leases import Leases, heartbeat
from acr_ray.tuning.objectives import logged
from acr_ray.tuning.pass_counts import Record, search_passes, validation_passes
from acr_ray.tuning.results import costs
from acr_ray.tuning.rungs import Rungs, place
from acr_ray.tuning.trial_run import SINCE_FORKS, SearchContext, TrialRun
from acr_ray.tuning.trunks import trunk_identity, trunk_recipe
from acr_ray.tuning.validation import ValidationSettings

SHORT = {"training.epochs": 6, "training.e_t": 2, "training.milestones": (4,), "reweigh.every": 2}
RECIPE = load_recipe("digits").change(SHORT)
POINTS = (
    {"training.e_t": 3, "discard.p_t": 0.4},
    {"training.e_t": 2, "discard.p_t": 0.4},
    {"training.e_t": 2},
    {"training.e_t": 3, "attack.steps": 1},
    {"training.m": 2, "training.e_t": 3},
)


@pytest.fixture(scope="module")
def images():
    found = open_images("digits", None, "train").subset(range(0, 1297, 4))
    return found.subset(range(0, len(found), 5)), found.subset(range(1, len(found), 5))


def context_of(out, **more):
    v = ValidationSettings(n=200, tolerance=0.3)
    base = SearchContext(
        recipe=RECIPE,
        seed=3,
        out=str(out),
        validation=v,
        objectives=logged((), 0.5, v.n, v.alpha),
        count=1,
        workers=Workers(),
        trunks=True,
        forks=(2, 3),
        rungs=(),
        checkpoint_every=10,
        fingerprint="of the test",
    )
    return replace(base, **more)


def trained(context, point, images, claims=None):
    run = TrialRun(context, point, (images[1], images[0]), Group())
    run.begin(claims or Leases())
    while (report := run.advance())["status"] == "running":
        pass
    return {**report, "point": point}, run


def weights(out, report):
    return load_file(out / "trials" / report["trial"] / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def both(images, tmp_path_factory):
    """The same trials with trunks and from the beginning."""
    forked, scratch = tmp_path_factory.mktemp("forked"), tmp_path_factory.mktemp("scratch")
    claims = Leases()
    return (
        (forked, [trained(context_of(forked), point, images, claims)[0] for point in POINTS]),
        (scratch, [trained(context_of(scratch, trunks=False), point, images)[0] for point in POINTS]),
    )


def test_a_fork_is_the_same_run_bit_for_bit(both):
    (forked, ours), (scratch, theirs) = both
    for one, other in zip(ours, theirs, strict=True):
        assert one["model_sha256"] == other["model_sha256"]
        assert {k: v.tobytes() for k, v in weights(forked, one).items()} == {
            k: v.tobytes() for k, v in weights(scratch, other).items()
        }
        for name in ("acr", "hard_share", "attack_active", "remaining"):
            length = len(one["remaining"]) if name in ("attack_active", "remaining") else None
            assert one[name] == (other[name] if length is None else other[name][-length:])
        assert one["trunk"] and not other["trunk"]


def test_each_trunk_and_estimate_is_made_once(both):
    (forked, reports), _ = both
    trunks = sorted((forked / "trunks").iterdir())
    assert len(trunks) == 2 == len({r["trunk"] for r in reports})
    estimates = {t.name: len(list(t.glob("p_a_*.json"))) for t in trunks}
    four = next(r["trunk"] for r in reports if r["point"].get("training.m") is None)
    assert estimates[four] == 2 and sum(estimates.values()) == 3
    entries = [json.loads(p.read_text()) for p in (forked / "trunks" / four).glob("epoch_*.json")]
    # The first trial asked for epoch 3; the trunk kept a checkpoint of epoch 2, which the space also has, in passing.
    assert sorted((e["epoch"], e["from_epoch"]) for e in entries) == [(2, 0), (3, 2)]


@pytest.mark.parametrize("trunks", [True, False])
def test_planned_passes_are_those_counted(both, images, trunks):
    out, reports = both[0] if trunks else both[1]
    recipes = [RECIPE.change(point) for point in POINTS]
    records = [Record(r["remaining"], r["attack_active"]) for r in reports]
    counted = costs(Folder(out), reports)
    planned = search_passes(recipes, len(images[1]), trunks, records)
    assert planned.total == counted["trials"] + counted["trunks"]
    assert planned.backward == counted["backward"]
    assert planned.forward == counted["forward"] - counted["validation"]
    at_most = search_passes(recipes, len(images[1]), trunks)
    assert at_most.total >= planned.total and at_most.total < 1.3 * planned.total


def test_an_estimates_and_a_validations_last_block_is_drawn_whole():
    assert validation_passes(10, 2000, (2000,), 500) == 20_000
    assert validation_passes(10, 1700, (700, 1700), 500) == 20_000
    assert validation_passes(1, 300, (50, 300), 500) == 300


def test_a_later_fork_extends_the_trunk_and_an_earlier_one_goes_back(images, tmp_path):
    narrow, claims = context_of(tmp_path, forks=()), Leases()
    found = [trained(narrow, {"training.e_t": e_t}, images, claims)[0] for e_t in (2, 4, 3)]
    files = narrow.trunks_for(claims).files(RECIPE)
    assert [(e["epoch"], e["from_epoch"]) for e in files.checkpoints().values()] == [(2, 0), (3, 2), (4, 2)]
    scratch = trained(context_of(tmp_path / "scratch", trunks=False), {"training.e_t": 3}, images)[0]
    assert found[2]["model_sha256"] == scratch["model_sha256"]


def test_a_trunk_that_was_killed_goes_on_from_its_last_checkpoint(images, tmp_path, monkeypatch):
    slow = context_of(tmp_path, forks=(), checkpoint_every=1)
    from acr_ray.training.loop import Trainer

    epoch, epochs = Trainer.epoch, []

    def dying(trainer, *arguments):
        epochs.append(trainer.progress.epoch)
        if epochs == [0, 1, 2]:
            raise KeyboardInterrupt
        return epoch(trainer, *arguments)

    monkeypatch.setattr(Trainer, "epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(slow, {"training.e_t": 4}, images)
    report, _ = trained(slow, {"training.e_t": 4}, images)
    assert epochs == [0, 1, 2, 2, 3, 4, 5]
    scratch, _ = trained(context_of(tmp_path / "scratch", trunks=False), {"training.e_t": 4}, images)
    assert report["model_sha256"] == scratch["model_sha256"]
    files = slow.trunks_for(Leases()).files(RECIPE)
    assert [(e["epoch"], e["from_epoch"]) for e in files.checkpoints().values()] == [(4, 0)]
    # Passes are those of the trunk, whatever was repeated: 4 epochs of m copies, and the estimate's 100 draws.
    assert files.passes().total == 4 * 2 * 4 * len(images[1]) + 100 * len(images[1])


def test_a_trial_goes_on_from_its_own_checkpoint(both, images, tmp_path):
    (_, reports), _ = both
    here = context_of(tmp_path, checkpoint_every=2)
    run = TrialRun(here, POINTS[0], (images[1], images[0]), Group())
    run.begin(Leases())
    assert run.advance()["epoch"] == 4
    (tmp_path / "kept").mkdir()
    run.save(tmp_path / "kept")
    again = TrialRun(here, POINTS[0], (images[1], images[0]), Group())
    assert again.finished() is None
    again.load(tmp_path / "kept")
    report = again.advance()
    assert report["status"] == "finished" and report["trunk"] == reports[0]["trunk"]
    assert report["model_sha256"] == reports[0]["model_sha256"]
    # A third finds the report of the second and has nothing left to do.
    assert TrialRun(here, POINTS[0], (images[1], images[0]), Group()).finished()["acr"] == report["acr"]


def test_trials_are_measured_at_rungs_and_a_trial_that_cannot_be_trained_reports_the_worst(images, tmp_path):
    run = TrialRun(context_of(tmp_path, rungs=(4,)), {"training.e_t": 2}, (images[1], images[0]), Group())
    run.begin(Leases())
    report = run.advance()
    assert report["epoch"] == 4 and report[SINCE_FORKS] == 1 and 0 < report["acr"] < 1
    assert run.advance()["status"] == "finished"
    wild = {"training.learning_rate": 1000.0, "training.weight_decay": 1.0}
    report, _ = trained(context_of(tmp_path / "wild"), wild, images)
    assert report["status"] == "failed" and "not finite" in report["reason"]
    assert report["acr"] == 0 and report["hard_share"] == 1


def test_what_acts_before_the_fork_makes_another_trunk():
    base = trunk_identity(RECIPE, {"seed": 0})
    same = {"training.e_t": 4, "training.epochs": 9, "discard.p_t": 0.1, "reweigh.every": 3, "attack.epsilon": 1.0}
    for field, value in same.items():
        assert trunk_identity(RECIPE.change({field: value}), {"seed": 0}) == base, field
    for field, value in {"training.m": 2, "training.sigma": 0.25, "training.milestones": (3,)}.items():
        assert trunk_identity(RECIPE.change({field: value}), {"seed": 0}) != base, field
    assert trunk_identity(RECIPE, {"seed": 1}) != base
    assert not trunk_recipe(RECIPE).changes_at_e_t and trunk_recipe(RECIPE).training.m == RECIPE.training.m


def test_leases_expire_with_their_owner():
    now = [0.0]
    leases = Leases(lambda: now[0], expiry=10)
    assert leases.ask("trunk", "a") and leases.ask("trunk", "a") and not leases.ask("trunk", "b")
    assert leases.ask("other", "b")
    now[0] = 9
    assert leases.ask("trunk", "a"), "a sign of life"
    now[0] = 18
    assert not leases.ask("trunk", "b")
    now[0] = 19.5
    assert leases.ask("trunk", "b") and not leases.ask("trunk", "a")
    leases.release("trunk", "a")
    assert not leases.ask("trunk", "a"), "only its owner releases it"
    leases.release("trunk", "b")
    assert leases.ask("trunk", "a")


def test_an_owner_gives_signs_of_life_while_it_works():
    seen = []

    class Watched(Leases):
        def ask(self, name, owner):
            seen.append(owner)
            return super().ask(name, owner)

    leases = Watched()
    leases.ask("trunk", "a")
    with heartbeat(leases, "trunk", "a", beat=0.01):
        while len(seen) < 4:
            pass
    assert leases.ask("trunk", "b"), "released afterwards"


def test_rungs_lie_after_the_last_fork_and_are_those_of_asha():
    assert place((20, 30, 40), 60) == Rungs(40, 20, 3)
    assert place((20, 30, 40), 60).epochs == (43, 49)
    assert place((5,), 6).epochs == () and place((), 9).epochs == (2, 6)
    from ray.tune.schedulers.async_hyperband import _Bracket

    from acr_ray.tuning.rungs import REDUCTION

    for most in range(1, 200):
        rungs = place((7,), 7 + most)
        theirs = [int(time) for time, _ in _Bracket(rungs.first, rungs.most, REDUCTION, 0)._rungs]
        assert [time for time in sorted(theirs) if time < most] == list(rungs.times), most
