"""The gate: what it judges, on which images, and how it ends. Draws in this process; no Ray."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from acr_ray.certification.audit import read_run
from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.procedure import Verdict
from acr_ray.cli.commands import certify, gate
from acr_ray.cli.drivers.gate_sources import _reader
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.session import RunOptions
from acr_ray.formats.states import Outcome
from acr_ray.serving.gate import Gate, ImageOutcome, gate_order
from acr_ray.serving.paired import OPEN, VIOLATED
from acr_ray.serving.requirements import read_requirements
from acr_ray.settings import UserError
from acr_ray.smoothing.bounds import radius
from acr_ray.storage import Folder
from tests.fakes.models import write_digits_checkpoint

SETTINGS = {"n": 200, "n0": 20, "max_images": 80, "alpha": 0.05, "radii": (0.0, 0.1)}
KEEPS = ("certified_accuracy@0 >= -10pt", "hard_share <= +10pt")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two checkpoints, the old one certified. Weights that differ a little answer a little differently."""
    folder = tmp_path_factory.mktemp("gate")
    write_digits_checkpoint(folder / "old")
    write_digits_checkpoint(folder / "new", sharper=1.5)
    options = RunOptions(str(folder / "certified"), tracking=False)
    certify.run(str(folder / "old"), options, settings=SETTINGS, on_ray=False)
    return folder


def judge(place, out, new="new", require=KEEPS, **more):
    options = RunOptions(str(out), tracking=False, overwrite=more.pop("overwrite", False))
    new = str(place / new) if "/" not in str(new) else str(new)
    return gate.run(new, options, against=str(place / "certified"), require=require, on_ray=False, **more)


def verdict(predicted=1, p=0.9, counts=None, outcome=Outcome.CERTIFIED):
    counts = counts or {1: 90, 2: 10}
    return Verdict(outcome, predicted, p, counts, sum(counts.values()), "n")


def test_what_a_certificate_says_of_an_image():
    right = ImageOutcome.of(verdict(), 1, 0.5)
    assert right == ImageOutcome(float(radius(0.9, 0.5)), False, False)
    assert ImageOutcome.of(verdict(), 2, 0.5) == ImageOutcome(0.0, True, False)
    abstains = verdict(p=0.0, counts={1: 50, 2: 50}, outcome=Outcome.ABSTAINED)
    assert ImageOutcome.of(abstains, 1, 0.5) == ImageOutcome(0.0, False, True)
    at, beyond, hard, silent = read_requirements(
        [
            f"certified_accuracy@{right.radius!r} >= 0",
            "certified_accuracy@0.65 >= 0",
            "hard_share <= 0",
            "abstained <= 0",
        ]
    )
    assert [right.good(r) for r in (at, beyond, hard, silent)] == [True, False, True, True]
    zero = read_requirements(["certified_accuracy@0 >= 0"])[0]
    assert not ImageOutcome(0.0, True, False).good(zero), "a wrong class has no certified accuracy at 0 either"


def outcomes(good):
    return ImageOutcome(0.5 if good else 0.0, not good, not good)


def test_every_class_must_keep_what_is_required_of_each():
    labels = np.tile([0, 1], 200)
    fair = read_requirements(["certified_accuracy@0.5 >= -5pt", "worst_class@0.5 >= -20pt"])
    judged = Gate(fair, labels, 0.05)
    for i, label in enumerate(labels):  # class 0 gains what class 1 loses
        old, new = (i // 2 % 2 == 1, True) if label == 0 else (True, i // 2 % 2 == 1)
        judged.add(int(label), outcomes(old), outcomes(new))
        if judged.answer != OPEN:
            break
    whole, first, second = judged.findings()
    assert judged.answer == VIOLATED and second.answer == VIOLATED and (second.label, first.label) == (1, 0)
    assert whole.answer != VIOLATED and second.difference == pytest.approx(-0.5, abs=0.02)
    assert judged.seen < 150


def test_more_hard_images_are_worse_and_shown_as_more():
    judged = Gate(read_requirements(["hard_share <= +10pt"]), np.zeros(100, dtype=int), 0.05)
    for i in range(100):
        judged.add(0, outcomes(True), outcomes(i % 2 == 0))
    (found,) = judged.findings()
    assert found.answer == VIOLATED and found.difference == 0.5


def test_the_order_of_images_is_a_function_of_their_names():
    names = [f"i/{i}" for i in range(50)]
    order = gate_order(names, 0)
    assert sorted(order) == list(range(50)) and order != list(range(50)) and order != gate_order(names, 1)
    shuffled = names[::-1]
    assert [names[i] for i in order] == [shuffled[i] for i in gate_order(shuffled, 0)]


@dataclass
class Store:
    finished: dict = field(default_factory=dict)


def test_images_are_seen_in_their_order_and_not_past_one_that_is_still_drawn(place):
    old = read_run(Folder(place / "certified"))
    order, store = gate_order(old.plan.names, 0), Store()
    judged = Gate(read_requirements(["certified_accuracy@0 >= -90pt"]), np.asarray(old.plan.labels)[order], 1e-12)
    see = _reader(judged, old, order, store)
    for position in (1, 2, 5):
        store.finished[position] = old.store.finished[order[position]]
    assert see() == OPEN and judged.seen == 0
    store.finished[0] = old.store.finished[order[0]]
    assert see() == OPEN and judged.seen == 3


def test_the_same_model_passes_and_needs_at_most_half_of_two_runs(place, tmp_path):
    result = judge(place, tmp_path / "g", new="old")
    assert result.opened and result.summary["why"].startswith("all requirements hold")
    assert result.summary["new_model_sha256"] == result.summary["old_model_sha256"]
    assert 0 < result.summary["evaluations"] <= result.summary["evaluations_of_two_runs"] / 2
    assert all(one["difference"] == 0 for one in result.summary["findings"])
    assert judge(place, tmp_path / "g", new="old").summary == result.summary, "asked again it is not judged again"


def test_a_worse_model_is_kept_out_and_the_sentence_says_why(place, tmp_path, capsys):
    result = judge(place, tmp_path / "g", require=["certified_accuracy@0 >= +60pt"])
    assert not result.opened and "'certified_accuracy@0 >= +60pt' does not hold: " in result.why
    words = [str(place / "new"), "--against", str(place / "certified"), "--out", str(tmp_path / "g"), "--no-tracking"]
    with pytest.raises(CommandFailed, match="the gate stays closed: 'certified_accuracy@0 >= \\+60pt' does not hold"):
        gate.main([*words, "--require", "certified_accuracy@0 >= +60pt"])
    assert capsys.readouterr().out.count("drawing in this process") == 1, "asked again, nothing is drawn again"


def test_drawn_and_certified_models_get_the_same_answer(place, tmp_path):
    certify.run(str(place / "new"), RunOptions(str(tmp_path / "c"), tracking=False), settings=SETTINGS, on_ray=False)
    drawn = judge(place, tmp_path / "drawn").summary
    certified = judge(place, tmp_path / "certified", new=tmp_path / "c").summary
    assert certified["evaluations"] == 0 < drawn["evaluations"]
    for key in ("open", "why", "findings", "images_seen", "new_model_sha256"):
        assert certified[key] == drawn[key], key


class Killed(BaseException):
    pass


def test_a_gate_that_was_killed_goes_on_and_says_the_same(place, tmp_path, monkeypatch):
    require = ["certified_accuracy@0 >= -90pt"]
    whole = judge(place, tmp_path / "whole", require=require).summary
    run = Coordinator.run

    def killed(self, on_progress):
        def stop(progress):
            if progress.noise_draws > 2000:
                raise Killed
            on_progress(progress)

        run(self, stop)

    monkeypatch.setattr(Coordinator, "run", killed)
    with pytest.raises(Killed):
        judge(place, tmp_path / "g", require=["certified_accuracy@0 >= +0.01pt"])
    monkeypatch.undo()
    drawn = sum(len(f.read_text().splitlines()) for f in (tmp_path / "g" / "ledger").iterdir())
    assert drawn
    resumed = judge(place, tmp_path / "g", require=["certified_accuracy@0 >= +0.01pt"])
    alone = judge(place, tmp_path / "alone", require=["certified_accuracy@0 >= +0.01pt"])
    assert resumed.summary["findings"] == alone.summary["findings"] and resumed.opened == alone.opened
    assert whole["open"]


def test_what_does_not_fit_together_is_refused_before_anything_is_made(place, tmp_path):
    out = tmp_path / "g"
    other = RunOptions(str(tmp_path / "n"), tracking=False)
    certify.run(str(place / "new"), other, settings=SETTINGS | {"n": 210}, on_ray=False)
    with pytest.raises(UserError, match="n is 210, but 200 in"):
        judge(place, out, new=tmp_path / "n")
    few = RunOptions(str(tmp_path / "few"), tracking=False)
    certify.run(str(place / "new"), few, settings=SETTINGS | {"max_images": 10}, on_ray=False)
    with pytest.raises(UserError, match="has no certificate there"):
        judge(place, out, new=tmp_path / "few")
    with pytest.raises(UserError, match="no certification run"):
        gate.run("x", RunOptions(str(out), tracking=False), against=str(tmp_path), require=KEEPS)
    with pytest.raises(UserError, match="--require: missing"):
        judge(place, out, require=[])
    assert not out.exists()
    judge(place, out)
    with pytest.raises(UserError, match="holds a run with other settings: requirements was"):
        judge(place, out, require=["hard_share <= +9pt"])


def test_an_old_run_that_knows_some_radii_only_is_asked_about_no_other(place, tmp_path):
    folder = tmp_path / "radii"
    settings = SETTINGS | {"stopping": "radii", "max_images": 20}
    certify.run(str(place / "old"), RunOptions(str(folder), tracking=False), settings=settings, on_ray=False)
    options = RunOptions(str(tmp_path / "g"), tracking=False)
    with pytest.raises(UserError, match="does not tell radius 0.25; certify with --radii"):
        gate.run(
            str(place / "new"), options, against=str(folder), require=["certified_accuracy@0.25 >= 0"], on_ray=False
        )
    result = gate.run(
        str(place / "new"), options, against=str(folder), require=["certified_accuracy@0.1 >= -99pt"], on_ray=False
    )
    assert result.opened


def test_the_population_can_stay_open_with_too_few_images(place, tmp_path):
    result = judge(place, tmp_path / "g", require=["certified_accuracy@0 >= -0.1pt"], population=True, new="old")
    assert not result.opened and "is not shown by all 80 images" in result.why
    assert json.loads((tmp_path / "g" / "summary.json").read_text())["about"] == "population"
    assert judge(place, tmp_path / "h", require=["certified_accuracy@0 >= -0.1pt"], new="old").opened
