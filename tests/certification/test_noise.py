"""Lattice noise from the settings to the certificate: names, grades, alpha, old folders, rounded images, audits."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import chi2

import acr_ray
from acr_ray.certification.redrawing import Redrawn, compare
from acr_ray.certification.work_items import BlockRange
from acr_ray.cli.commands import audit
from acr_ray.cli.exits import CommandFailed
from acr_ray.data import open_images
from acr_ray.models import load_checkpoint
from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import comparison_table, markdown_table
from acr_ray.settings import CertifySettings, UserError
from acr_ray.settings.datasets import grid_of
from acr_ray.smoothing.arithmetic import prepare
from acr_ray.smoothing.bounds import lower_bound
from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.smoothing.lattice_law import LatticeLaw, alpha_left, levels_for
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.run_noise import facts_of, judged_by
from docs.examples.low_bits import DISTANCE, answers
from tests.fakes.models import write_digits_checkpoint

BUDGET = {"n": 400, "n0": 40, "max_images": 7}
LINES = "ledger/00000000.jsonl"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", sharper=3)


@pytest.fixture(scope="module")
def lattice_run(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("lattice") / "run"
    certified(checkpoint, out)
    return out


def certified(checkpoint, out, **settings):
    return acr_ray.certify(str(checkpoint), out=str(out), ray=False, checks=False, **{**BUDGET, **settings})


def columns(out):
    return pq.read_table(f"{out}/certificates.parquet").to_pylist()


def test_a_run_draws_lattice_noise_and_says_so(checkpoint, lattice_run):
    """The counts are those of `SmoothedClassifier`, image by image."""
    rows, told = columns(lattice_run), json.loads((lattice_run / "summary.json").read_text())
    share = 440 * 64 * LatticeLaw(0.25, 256).total_variation
    for row in rows:
        assert (row["noise"], row["step"], row["grade"], row["noise_alpha"]) == ("lattice/1", "1/256", "sound", share)
    assert (told["noise"], told["step"], told["grade"]) == ("lattice/1", "1/256", "sound")
    assert told["noise_alpha"] == share and told["rounded"] == {"images": 0, "farthest": 0.0}
    model, card = load_checkpoint(str(checkpoint))
    images = open_images("digits", None, "test")
    smoothed = SmoothedClassifier(model, 10, card.sigma, grid=grid_of(card.dataset))
    for row in rows:
        found = smoothed.certify(
            images.load([images.names.index(row["image"])], None)[0], name=row["image"], n0=40, n=400
        )
        assert (found.predicted, found.count_top) == (row["predicted"], row["count_top"])
        assert (found.noise, found.step, found.grade, found.rounded) == ("lattice/1", "1/256", "sound", 0.0)


def test_float_noise_is_what_it_was(checkpoint, tmp_path):
    certified(checkpoint, tmp_path / "run", noise="float")
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert not {"noise", "grid"} & set(identity)
    rows = columns(tmp_path / "run")
    assert {(row["noise"], row["step"], row["grade"], row["noise_alpha"]) for row in rows} == {
        ("pcg64/1", "", "float", 0)
    }


def test_a_run_that_began_with_float_noise_goes_on_with_it(checkpoint, tmp_path, capsys):
    """As runs of before lattice noise: nothing in their files names a noise."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        certified(checkpoint, out, noise="float")
    plan = json.loads((cut / "plan.json").read_text())
    del plan["settings"]["noise"], plan["settings"]["grid"], plan["coordinates"]
    (cut / "plan.json").write_text(json.dumps(plan))
    lines = (cut / LINES).read_text().splitlines(keepends=True)
    (cut / LINES).write_text("".join(lines[: len(lines) // 2]))
    for name in ("summary.json", "certificates.parquet", "certificates.tsv"):
        (cut / name).unlink()
    capsys.readouterr()
    resumed = certified(checkpoint, cut)
    assert "has begun with float noise, and goes on with it (--noise float)" in capsys.readouterr().out
    assert 0 < resumed.summary["evaluations_this_time"] < resumed.summary["evaluations"]
    assert [row["counts"] for row in columns(cut)] == [row["counts"] for row in columns(whole)]
    with pytest.raises(UserError, match="other settings: noise was"):
        certified(checkpoint, cut, noise="lattice")


def test_lattice_runs_resume_and_refuse_other_noise(checkpoint, lattice_run, capsys):
    capsys.readouterr()
    assert certified(checkpoint, lattice_run).done_before
    assert "float noise" not in capsys.readouterr().out
    with pytest.raises(UserError, match="other settings: noise was 'lattice'"):
        certified(checkpoint, lattice_run, noise="float")


def test_bounds_are_at_the_alpha_that_the_noise_leaves():
    """Of one function, and in all that compute bounds; shown with a share that can be seen."""
    settings = CertifySettings(sigma=0.5, dataset="digits", n=1000)
    facts = facts_of(settings, 64)
    assert facts.share == 1100 * 64 * LatticeLaw(0.5, 255).total_variation
    judged = judged_by(settings, replace(facts, share=0.0004))
    assert judged.alpha == alpha_left(0.001, 0.0004) <= 0.0006 and settings.alpha == 0.001
    with pytest.raises(UserError, match="nothing is left for the bound"):
        judged_by(settings, replace(facts, share=0.001))
    with pytest.raises(UserError, match="too few draws"):
        judged_by(settings.change({"n": 10}), replace(facts, share=0.0005))


def test_a_ledgers_certificates_and_their_report_pay_for_the_noise(lattice_run, monkeypatch, tmp_path):
    """With a total variation that can be seen, so that whoever forgot it would be."""
    monkeypatch.setattr(LatticeLaw, "total_variation", property(lambda law: 0.0004 / (440 * 64)))
    audit.main([str(lattice_run), "--out", str(tmp_path / "audit")])
    rows = columns(tmp_path / "audit")
    assert {(round(row["noise_alpha"], 9), row["alpha"]) for row in rows} == {(0.0004, 0.001)}
    source = open_source(("a", f"{tmp_path}/audit/certificates.parquet"))
    assert source.bound_alpha == pytest.approx(0.0006) and source.alpha == 0.001 and source.grade == "sound"
    for row, radius in zip(rows, source.rows.radius, strict=True):
        bound = float(lower_bound(row["count_top"], 400, 0.0006))
        assert row["p_lower"] == pytest.approx(bound if bound > 0.5 else 0.0, abs=1e-12)
        assert radius == pytest.approx(0.25 * ndtri(max(bound, 0.5)), abs=1e-12)
    smoothed = SmoothedClassifier(Grey(), 2, 0.25, grid=16)
    certificate = smoothed.certify(torch.zeros(1, 8, 8), n0=40, n=400)
    assert certificate.p_lower == pytest.approx(0.0006 ** (1 / 400), rel=1e-6)


class Grey(torch.nn.Module):
    def forward(self, x):
        return torch.stack([torch.ones(len(x)), torch.zeros(len(x))], 1)


def test_reports_say_which_sources_are_sound(checkpoint, lattice_run, tmp_path):
    certified(checkpoint, tmp_path / "float", noise="float")
    both = [open_source(("a", str(lattice_run))), open_source(("b", str(tmp_path / "float")))]
    told = "Certificates: one-class. Sound in floating point: a."
    report = build_report(both, (0.0, 0.25), False)
    assert told in comparison_table(report) and told in markdown_table(report)
    assert [source["grade"] for source in summary(report)["sources"]] == ["sound", "float"]
    assert "Sound" not in comparison_table(build_report(both[1:], (0.0, 0.25), False))


def test_counts_are_those_of_float_noise_within_chance(checkpoint):
    """Two-sample test of the selected class's counts, over images; each alone may differ."""
    model, card = load_checkpoint(str(checkpoint))
    images, phase, n = open_images("digits", None, "test"), Phase("estimate", 1000, 500), 1000
    levels = levels_for(card.sigma, 16)
    one, other = (SamplingEngine(prepare(model), 10, card.sigma, levels=chosen) for chosen in (levels, None))
    chosen = range(0, 500, 25)
    x, names = images.load(chosen, None), [images.names[i] for i in chosen]
    a, b = (engine.count_images(x, names, 0, phase, 0, 2) for engine in (one, other))
    top = a.argmax(1)[:, None]
    hits = [np.take_along_axis(counts, top, 1)[:, 0] for counts in (a, b)]
    share = (hits[0] + hits[1]) / (2 * n)
    spread = np.sqrt(2 * n * share * (1 - share))
    scores = (hits[0] - hits[1])[spread > 0] / spread[spread > 0]
    assert len(scores) > 10 and chi2.sf((scores**2).sum(), len(scores)) > 1e-4


def test_only_one_shape_of_forward_passes_is_sound():
    settings = CertifySettings(sigma=0.5, dataset="digits")
    assert facts_of(settings, 64).grade == "sound"
    assert facts_of(settings.change({"stopping": "radii"}), 64).grade == "float"
    assert facts_of(settings.change({"noise": "float"}), 64).grade == "float"
    assert facts_of(settings, 0).grade == "float"  # a plan that does not say how large its images are


def test_images_between_the_grids_points_are_rounded_and_counted(checkpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (6, 8, 8)) / 255
    whole[4:] = rng.random((2, 8, 8))
    model, data = load_checkpoint(str(checkpoint))[0], (whole.astype(np.float32), np.arange(6))
    given = {"n": 60, "n0": 20, "class_names": [str(k) for k in range(10)], "ray": False, "checks": False}
    found = acr_ray.certify(model, data, sigma=0.5, out=str(tmp_path / "a"), **given)
    away = np.linalg.norm((whole[4:] - np.rint(whole[4:] * 255) / 255).reshape(2, -1), axis=1)
    assert "2 of 6 images do not lie on the grid 1/255 and are rounded to it, by up to" in capsys.readouterr().out
    assert found.summary["rounded"]["images"] == 2
    assert found.summary["rounded"]["farthest"] == pytest.approx(away.max(), rel=1e-4)
    smoothed = SmoothedClassifier(Grey(), 2, 0.5)
    assert smoothed.certify(torch.tensor(whole[4:5]), n=20).rounded == pytest.approx(away[0], rel=1e-4)
    assert smoothed.certify(torch.tensor(whole[:1]), n=20).rounded == 0.0


def test_noise_too_large_for_16_bits_is_float_unless_lattice_was_asked_for(checkpoint, tmp_path, capsys):
    run = certified(checkpoint, tmp_path / "a", sigma=7.0)
    assert run.summary["noise"] == "lattice/1"  # the digits' grid is coarser than that of 8-bit images
    run = certified(checkpoint, tmp_path / "b", sigma=7.0, grid=255)
    assert run.summary["noise"] == "pcg64/1" and "float noise: sigma 7 is too large" in capsys.readouterr().out
    with pytest.raises(UserError, match="--noise lattice: sigma 7 is too large"):
        certified(checkpoint, tmp_path / "c", sigma=7.0, grid=255, noise="lattice")
    with pytest.raises(UserError, match="grid = 16: belongs to noise lattice"):
        certified(checkpoint, tmp_path / "d", noise="float", grid=16)


def test_the_grids_of_settings_are_those_of_the_data():
    images = open_images("digits", None, "test")
    assert images.grid == grid_of("digits") == 16 and grid_of("cifar10") == grid_of(None) == grid_of("my:data") == 255


def redrawn(run, checkpoint, out):
    audit.main([str(run), "--redraw", "5", "--checkpoint", str(checkpoint), "--out", str(out)])


def test_a_ledger_of_another_machine_is_redrawn_with_its_own_noise(checkpoint, lattice_run, tmp_path, capsys):
    redrawn(lattice_run, checkpoint, tmp_path / "first")
    assert "redrawn: 5 lines agree exactly" in capsys.readouterr().out
    plan_file = tmp_path / "cuda" / "plan.json"
    copy = tmp_path / "cuda"
    copy.mkdir()
    for name in ("images.parquet", "plan.json", "run.json"):
        (copy / name).write_bytes((lattice_run / name).read_bytes())
    (copy / "ledger").mkdir()
    for file in (lattice_run / "ledger").iterdir():
        (copy / "ledger" / file.name).write_bytes(file.read_bytes())
    plan = json.loads(plan_file.read_text())
    plan["settings"]["device"] = "cuda"
    plan_file.write_text(json.dumps(plan))
    redrawn(copy, checkpoint, tmp_path / "second")
    assert "redrawn: 5 lines agree exactly" in capsys.readouterr().out


def lines(written, drawn):
    return [Redrawn("a", BlockRange(0, "estimate", 0, 1), w, d) for w, d in zip(written, drawn, strict=True)]


@pytest.mark.parametrize(
    ("drawn", "settings", "device", "wrong", "told"),
    [
        ({0: 990, 1: 10}, {}, "cpu", False, "1 lines agree exactly (1,000 answers): noise and answers are those"),
        (
            {0: 989, 1: 11},
            {},
            "cpu",
            True,
            "at least 1 of 1,000 answers differ. The noise is the same on every machine",
        ),
        (
            {0: 989, 1: 11},
            {"device": "cuda"},
            "cpu",
            False,
            "(the ledger was drawn on cuda, this is cpu): the noise is",
        ),
        ({0: 900, 1: 100}, {"device": "cuda"}, "cpu", True, "far more than rounding explains"),
        ({0: 989, 1: 11}, {"noise": "float"}, "cpu", True, "at least 1 of 1,000 answers differ"),
    ],
)
def test_what_a_redrawn_line_means(drawn, settings, device, wrong, told):
    run = CertifySettings.build({"sigma": 0.5, "dataset": "digits", **settings})
    found = compare(lines([{0: 990, 1: 10}], [drawn]), run, device)
    assert told in found.told and found.wrong == wrong


def test_another_model_is_no_rounding(lattice_run, checkpoint, tmp_path):
    file = lattice_run / LINES
    kept = file.read_text()
    forged = [json.loads(line) for line in kept.splitlines()]
    for line in forged:
        line["counts"] = {"9": sum(line["counts"].values())}
    try:
        file.write_text("".join(json.dumps(line) + "\n" for line in forged))
        with pytest.raises(CommandFailed, match="lines of the ledgers are not"):
            redrawn(lattice_run, checkpoint, tmp_path / "audit")
    finally:
        file.write_text(kept)


def test_low_bits_break_float_certificates_and_no_lattice_certificate():
    """docs/examples/low_bits.py: a radius that float noise certifies and that is wrong."""
    certificate, black = answers("float")
    assert certificate.radius > DISTANCE and not certificate.abstained
    assert black != certificate.predicted and black >= 0  # within the radius, and certainly another class
    certificate, black = answers("lattice")
    assert certificate.radius < DISTANCE and certificate.grade == "sound"
    assert black == certificate.predicted
