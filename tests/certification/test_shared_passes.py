"""Runs whose images share forward passes: counts of any company, fewer passes, folders of before, the grade."""

import json

import pyarrow.parquet as pq
import pytest

import acr_ray
from acr_ray.certification.coordinator import Coordinator
from acr_ray.certification.image_cache import Kept, most_kept
from acr_ray.certification.local_pool import LocalSamplerPool, drawing_here
from acr_ray.certification.run_plan import RunPlan
from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.certification.work_items import Queue, WorkItem
from acr_ray.cli.commands import audit
from acr_ray.data import open_images
from acr_ray.models import load_checkpoint, state_bytes
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.run_noise import facts_of, pass_rows
from acr_ray.storage import Folder
from tests.fakes.models import write_digits_checkpoint

BUDGET = {"n": 2000, "n0": 40, "alpha": 0.01}
IMAGES = 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_digits_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", sharper=3)


def certified(checkpoint, out, **settings):
    given = {**BUDGET, "max_images": IMAGES, **settings}
    return acr_ray.certify(str(checkpoint), out=str(out), ray=False, checks=False, **given)


def as_before(checkpoint, out, **settings):
    """A run as the version without shared passes left it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("acr_ray.cli.drivers.certification.with_shared_passes", lambda settings, *given: settings)
        done = certified(checkpoint, out, **settings)
    plan = json.loads((out / "plan.json").read_text())
    del plan["settings"]["pass_rows"]
    (out / "plan.json").write_text(json.dumps(plan))
    return done


def rows(out):
    return pq.read_table(f"{out}/certificates.parquet").to_pylist()


class Watched(Sampler):
    """Counts its forward passes and the pixels that it is sent."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.passes, self.sent, self.requests, self.sizes = 0, 0, 0, []
        self._engine.model.register_forward_pre_hook(self._seen)

    def _seen(self, module, inputs):
        self.passes += 1
        self.sizes.append(len(inputs[0]))

    def draw(self, requests):
        self.requests += len(requests)
        self.sent += sum(len(request.names) for request in requests if request.pixels is not None)
        return super().draw(requests)


def run(checkpoint, folder, settings, samplers=1, monkeypatch=None):
    """Certify with samplers in this process. Returns the store and the samplers."""
    model, card = load_checkpoint(str(checkpoint))
    images = open_images("digits", None, "test").subset(range(IMAGES))
    plan = RunPlan(settings, images.names, range(IMAGES), images.labels, 10, "m", "a", "d", card.class_names, 64)
    monkeypatch.setattr("acr_ray.certification.local_pool.Sampler", Watched)
    with drawing_here():
        pool = LocalSamplerPool(card, state_bytes(model), settings.sigma, 0, Arithmetic.of(settings))
        book, store = plan.open(Folder(folder))
        shared = settings.pass_rows is not None
        size = settings.pass_rows or settings.block
        Coordinator(book, store, images, pool, samplers, samplers, size, shared=shared).run()
    return store, list(pool._samplers.values())


@pytest.mark.parametrize("stopping", ["radii", "width", "distribution"])
def test_fewer_passes_and_the_counts_of_one_image_a_pass(checkpoint, tmp_path, stopping, monkeypatch):
    own = CertifySettings(sigma=0.25, dataset="digits", stopping=stopping, band=0.2, grid=16, block=200, **BUDGET)
    shared = own.change({"pass_rows": 64})
    before, (alone,) = run(checkpoint, tmp_path / "own", own, 1, monkeypatch)
    after, (together,) = run(checkpoint, tmp_path / "shared", shared, 1, monkeypatch)
    assert after.finished == before.finished and after.noise_draws == before.noise_draws
    assert set(together.sizes) == {64} and len(set(alone.sizes)) > 1
    # At most one pass of each task is not full; tasks are few.
    assert together.passes <= -(-after.noise_draws // 64) + 40
    if stopping == "radii":  # 64 rows hold many looks
        assert together.passes < 0.6 * alone.passes, (together.passes, alone.passes)
        many, samplers = run(checkpoint, tmp_path / "many", shared, 3, monkeypatch)
        assert many.finished == after.finished and sum(s.passes > 0 for s in samplers) == 3


@pytest.mark.parametrize("pass_rows", [None, 64])
def test_an_image_is_sent_to_a_sampler_once(checkpoint, tmp_path, pass_rows, monkeypatch):
    settings = CertifySettings(sigma=0.25, dataset="digits", stopping="radii", grid=16, pass_rows=pass_rows, **BUDGET)
    _, (sampler,) = run(checkpoint, tmp_path, settings, 1, monkeypatch)
    assert sampler.sent == IMAGES < sampler.requests / 2


def test_what_both_sides_keep_is_the_same(checkpoint, tmp_path, monkeypatch):
    """Room for two images: the sampler never misses one that it is not sent."""
    for place in ("coordinator", "sampler"):
        monkeypatch.setattr(f"acr_ray.certification.{place}.most_kept", lambda numbers, coordinates: 2)
    settings = CertifySettings(sigma=0.25, dataset="digits", stopping="radii", grid=16, pass_rows=64, **BUDGET)
    _, (sampler,) = run(checkpoint, tmp_path, settings, 1, monkeypatch)
    assert sampler.sent > IMAGES and len(sampler._kept) == 2


def test_kept_images_are_those_used_last():
    kept = Kept(2)
    assert not kept.has("a") and kept.use("abc", [1, 2, 3]) == [1, 2, 3] and len(kept) == 3
    kept.trim()
    assert kept.has("bc") and not kept.has("a") and kept.use("b") == [2]
    kept.use("d", [4])
    kept.trim()
    assert kept.has("bd") and not kept.has("c")
    with pytest.raises(KeyError):
        kept.use("c")
    assert most_kept(1000, 10) == 100 and most_kept(1000, 1000) == 64


def test_tasks_at_the_end_fill_a_pass_if_they_can():
    def queue(least):
        made = Queue(0, lambda image: [], {"e": Phase("e", 20, 20)}, 100, "e", least)
        made.put([WorkItem((i,), Phase("e", 20, 20), 0, 1) for i in range(10)])
        return made

    assert len(queue(1).take(10_000, tasks=4)) == 3 and len(queue(100).take(10_000, tasks=4)) == 5


def test_a_run_with_early_stopping_shares_passes_and_is_sound(checkpoint, tmp_path, capsys):
    done = certified(checkpoint, tmp_path / "run", stopping="radii")
    assert done.summary["grade"] == "sound" and {row["grade"] for row in rows(tmp_path / "run")} == {"sound"}
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert identity["pass_rows"] == 100
    assert certified(checkpoint, tmp_path / "run", stopping="radii").done_before
    capsys.readouterr()
    audit.main([str(tmp_path / "run"), "--redraw", "9", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "a")])
    assert "redrawn: 9 lines agree exactly" in capsys.readouterr().out
    other = as_before(checkpoint, tmp_path / "other", stopping="radii")
    assert other.summary["grade"] == "float" and other.summary["settings_sha256"] != done.summary["settings_sha256"]
    assert [row["counts"] for row in rows(tmp_path / "other")] == [row["counts"] for row in rows(tmp_path / "run")]


def test_a_run_with_a_fixed_n_and_one_of_float_noise_are_what_they_were(checkpoint, tmp_path):
    for name, changes in {"fixed": {}, "float": {"stopping": "radii", "noise": "float"}}.items():
        certified(checkpoint, tmp_path / name, **changes)
        assert "pass_rows" not in json.loads((tmp_path / name / "run.json").read_text())["identity"]


@pytest.mark.parametrize("begun_with", [None, 30])
def test_a_run_goes_on_with_the_passes_that_it_has_begun_with(checkpoint, tmp_path, begun_with):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        if begun_with is None:
            as_before(checkpoint, out, stopping="radii")
        else:
            certified(checkpoint, out, stopping="radii", pass_rows=begun_with)
    file = cut / "ledger" / "00000000.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 3]))
    for name in ("summary.json", "certificates.parquet", "certificates.tsv"):
        (cut / name).unlink()
    resumed = certified(checkpoint, cut, stopping="radii")
    assert 0 < resumed.summary["evaluations_this_time"] < resumed.summary["evaluations"]
    assert [row["counts"] for row in rows(cut)] == [row["counts"] for row in rows(whole)]
    assert json.loads((cut / "run.json").read_text())["identity"].get("pass_rows") == begun_with
    with pytest.raises(UserError, match="block was 500, is 50"):
        certified(checkpoint, cut, stopping="radii", block=50)


def test_what_the_settings_say_of_shared_passes():
    settings = CertifySettings(sigma=0.5, dataset="digits", stopping="radii")
    assert pass_rows(settings) == 100 and pass_rows(settings.change({"block": 40})) == 40
    assert pass_rows(settings.change({"device": "cuda", "block": 2000})) == 2000
    assert "pass_rows" not in settings.identity()
    # A compiled network, and the kernel that makes the noise on a GPU, are compiled for that one shape.
    assert Arithmetic.of(settings.change({"pass_rows": 64})).rows == (64,) and Arithmetic.of(settings).rows == (500,)
    for stopping in ("radii", "width", "distribution"):
        one, many = (settings.change({"stopping": stopping, "pass_rows": rows}) for rows in (100, None))
        assert facts_of(one, 64).grade == "sound" and facts_of(many, 64).grade == "float"
        assert facts_of(one, 64).share == facts_of(many, 64).share > 0
    assert facts_of(settings.change({"pass_rows": 100}), 0).grade == "float"
    with pytest.raises(UserError, match="pass_rows = 9: belongs to noise lattice"):
        settings.change({"pass_rows": 9, "noise": "float"})
