"""A device whose memory is full: figures that there are stay, and a block is halved before a run is made of it."""

import json

import pytest
import torch

from acr_ray.certification.sampler import Arithmetic, Sampler
from acr_ray.cli.commands import certify
from acr_ray.cli.drivers import block_size, one_actor
from acr_ray.cli.exits import CommandFailed
from acr_ray.cli.session import RunOptions
from acr_ray.models import load_checkpoint, state_bytes
from acr_ray.settings import CertifySettings, UserError
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.storage import Folder
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture
def small(monkeypatch):
    """A device that has room for passes of 300 rows."""
    counted = SamplingEngine.count_images

    def count(engine, images, names, seed, phase, first, stop):
        if len(images) * phase.block > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return counted(engine, images, names, seed, phase, first, stop)

    monkeypatch.setattr(SamplingEngine, "count_images", count)


@pytest.fixture
def checkpoint(tmp_path):
    return str(write_digits_checkpoint(tmp_path / "model", sharper=3))


def sampler_of(checkpoint):
    model, card = load_checkpoint(checkpoint)
    return Sampler(card, state_bytes(model), 0.25, 0, Arithmetic())


def test_blocks_that_fit_keep_their_rates(checkpoint, small):
    rates = sampler_of(checkpoint).rates((100, 200, 400, 800, 150), seconds=0.02)
    assert [rate > 0 for rate in rates] == [True, True, False, False, True]


def test_a_block_is_halved_until_it_fits(checkpoint, small, monkeypatch):
    sampler = sampler_of(checkpoint)
    assert [sampler.fitting_block(block) for block in (1000, 300, 301, 1)] == [250, 300, 150, 1]
    monkeypatch.setattr(SamplingEngine, "count_images", lambda *_: full())
    assert sampler.fitting_block(1000) == 0


def full():
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")


def test_no_other_error_is_taken_for_a_full_memory(checkpoint, monkeypatch):
    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(SamplingEngine, "count_images", broken)
    for ask in (lambda s: s.fitting_block(10), lambda s: s.rates((10,))):
        with pytest.raises(RuntimeError, match="multiplied"):
            ask(sampler_of(checkpoint))


def certified(checkpoint, out, block, **more):
    settings = {"n": 300, "n0": 20, "max_images": 6, "block": block, **more}
    options = RunOptions(str(out), tracking=False)
    return certify.run(checkpoint, options, settings=settings, gpus_per_actor=1, on_ray=False, checks=False)


def test_a_run_on_a_gpu_has_the_block_that_fits_and_goes_on_with_it(checkpoint, tmp_path, small, monkeypatch, capsys):
    made = Arithmetic.of
    # The GPU's part is played by the CPU.
    monkeypatch.setattr(
        Arithmetic, "of", lambda settings, int8=None: made(settings.change({"device": "cpu"}, "test"), int8)
    )
    out = tmp_path / "a"
    certified(checkpoint, out, 1000)
    assert "block 1000 does not fit into the GPU's memory; halved to 250" in capsys.readouterr().out
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["block"] == 250 and record["block_asked"] == 1000
    monkeypatch.setattr(Sampler, "fitting_block", lambda *_: pytest.fail("tried again"))
    assert certified(checkpoint, out, 1000).done_before is True
    assert certified(checkpoint, out, 250).done_before is True
    with pytest.raises(UserError, match="block was 250, is 800"):
        certified(checkpoint, out, 800)
    monkeypatch.setattr(Sampler, "fitting_block", lambda *_: 0)
    with pytest.raises(CommandFailed, match="not even one row fits"):
        certified(checkpoint, tmp_path / "b", 800)
    assert not (tmp_path / "b").exists(), "before anything is made"


def test_the_quickest_of_the_blocks_that_were_measured_is_taken(checkpoint, tmp_path, monkeypatch, capsys):
    asked = []

    def ask(arguments, questions, gpus, option, verbose, partly=False):
        asked.append((questions, partly))
        return [[100.0], [300.0], [200.0]]  # then its node's memory was full, and the actor died

    monkeypatch.setattr(block_size, "ask_one_actor", ask)
    model, card = load_checkpoint(checkpoint)
    settings = CertifySettings(sigma=0.25, dataset="digits")
    found = block_size.with_measured_block(
        settings, RunOptions(str(tmp_path / "a")), Folder(tmp_path / "a"), card, model, 0
    )
    questions, partly = asked[0]
    assert partly and [given for _, (given,) in questions] == [(b,) for b in block_size.CANDIDATES["cpu"]]
    assert found.block == block_size.CANDIDATES["cpu"][1]
    assert "400: does not fit, 800: does not fit" in capsys.readouterr().out


class Answers:
    """Stands in for Ray: an actor that dies at its third question."""

    def __init__(self, monkeypatch, dies_at):
        import ray
        from ray.exceptions import RayActorError

        from acr_ray.certification import sampler_pool

        def get(question, timeout):
            if question == dies_at:
                raise RayActorError
            return question

        monkeypatch.setattr(one_actor, "connect", lambda verbose: None)
        monkeypatch.setattr(sampler_pool.Actors, "fitting", lambda asked, gpus: None)
        monkeypatch.setattr(sampler_pool, "sampler_class", lambda actors: self)
        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "kill", lambda actor: None)

    def remote(self, *arguments):
        return self

    @property
    def rates(self):
        class Method:
            remote = staticmethod(lambda number: number)

        return Method


@pytest.mark.parametrize("dies_at, partly, found", [(2, True, [0, 1]), (9, False, [0, 1, 2, 3])])
def test_answers_of_before_a_death_are_kept_where_that_is_asked_for(monkeypatch, dies_at, partly, found):
    Answers(monkeypatch, dies_at)
    asked = [("rates", (number,)) for number in range(4)]
    assert one_actor.ask_one_actor((), asked, 0, "--block auto", False, partly=partly) == found


@pytest.mark.parametrize("dies_at, partly", [(0, True), (2, False)])
def test_a_death_without_answers_says_what_to_do(monkeypatch, dies_at, partly):
    Answers(monkeypatch, dies_at)
    with pytest.raises(CommandFailed, match="memory full"):
        one_actor.ask_one_actor((), [("rates", (n,)) for n in range(4)], 0, "--block auto", False, partly=partly)
