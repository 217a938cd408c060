"""Every answer is the engine's own for the same seeds, whoever shares its passes and whoever ends it."""

import asyncio
import json
import threading

import numpy as np
import pytest
import torch

from acr_ray.models import load_checkpoint
from acr_ray.serving.asking import JSON
from acr_ray.serving.draws import Apart, Chunk, Drawer, Stream, Together
from acr_ray.serving.errors import Refused
from acr_ray.serving.questions import CertifyQuestion, PAQuestion
from acr_ray.serving.scheduler import Busy, Closed, Scheduler, Ticket
from acr_ray.settings.serve import ServeSettings
from acr_ray.smoothing.engine import BrokenModelError, SamplingEngine
from acr_ray.smoothing.plan import Phase
from acr_ray.smoothing.stopping import rule_for
from tests.serving import making

PHASE = Phase("estimate", 1000, 50)


@pytest.mark.parametrize("levels", [255, None])
def test_the_copies_of_a_pass_are_each_images_own_blocks(levels):
    images = [torch.from_numpy(image) for image in making.digits(4)]
    model = load_checkpoint(making.checkpoint())[0]
    engine = SamplingEngine(model, 10, making.SIGMA, levels=levels)
    noise, select = engine.noise, Phase("select", 100, 50)
    chunks = [Chunk(Stream(images[0], "a"), PHASE, 7), Chunk(Stream(images[1], "b"), select, 0)]
    chunks += [Chunk(chunks[0].stream, PHASE, 3), Chunk(Stream(images[3], "c"), PHASE, 19)]
    blocks = [
        next(
            iter(noise.blocks(noise.placed(c.stream.image[None]), [c.stream.key], 0, c.phase, c.number, c.number + 1))
        ).clone()
        for c in chunks
    ]
    ways = [Apart(engine, (1, 8, 8), 300)]
    if levels:
        ways.append(Together(noise, 300, 50))
    for copies in ways:
        for order in ([0, 1, 2, 3], [3, 2, 0], [1], [2, 2, 2, 2, 2, 2]):
            found = copies([chunks[i] for i in order])
            assert found.shape == (300, 1, 8, 8)
            assert torch.equal(found[: 50 * len(order)], torch.cat([blocks[i] for i in order]))


def ask(service, kind, images, **options):
    body = json.dumps({"images": [{"array": image.tolist()} for image in images], **options}).encode()
    return service.answer(kind, JSON, body, {})


def answers(service, kind, images, **options):
    return asyncio.run(ask(service, kind, images, **options))["results"]


def drawer(rows=500, chunk=50):
    torch.set_num_threads(1)
    model, card = load_checkpoint(making.checkpoint())
    return Drawer(making.engine(model), card.shape, rows, chunk)


def test_a_chunk_gets_the_same_classes_wherever_it_lies_and_whatever_shares_its_pass():
    images = [torch.from_numpy(image) for image in making.digits(10)]
    mine, draws = Chunk(Stream(images[0], "mine"), PHASE, 3), drawer()
    alone = draws.draw([mine])[0]
    for place in range(10):
        others = [Chunk(Stream(images[i], f"other {place} {i}"), PHASE, i) for i in range(10)]
        others[place] = mine
        assert np.array_equal(draws.draw(others)[place], alone)
    # It is the engine's own block of that image.
    assert np.array_equal(np.bincount(alone, minlength=10), draws.engine.count(images[0], "mine", 0, PHASE, 3, 4))
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("kind", "noise", "dtype"),
    [
        ("certify", "lattice", "float32"),
        ("predict", "lattice", "float32"),
        ("certify", "float", "float32"),
        ("certify", "lattice", "bfloat16"),
    ],
)
def test_answers_of_requests_at_once_are_those_of_the_plain_way(kind, noise, dtype):
    images, service = making.digits(12), making.service(noise=noise, dtype=dtype)
    radii = service.settings.radii if kind == "certify" else (0.0,)

    async def all_at_once():
        return await asyncio.gather(*(ask(service, kind, [image]) for image in images))

    every = asyncio.run(all_at_once())
    assert {answer["model"]["arithmetic"] for answer in every} == {f"{dtype} on cpu, batch norm folded"}
    found = [answer["results"][0] for answer in every]
    for image, answer in zip(images, found, strict=True):
        plain = making.plain_certificate(image, kind, service.settings, radii, 0.001)
        assert {key: answer[key] for key in plain if key in answer} == {k: v for k, v in plain.items() if k in answer}
    assert {answer["grade"] for answer in found} == {"sound" if noise == "lattice" else "float"}
    assert len({answer["n"] for answer in found}) > 1 and any(answer["class"] is not None for answer in found)
    service.close()


def test_an_image_off_the_grid_says_how_far_it_is_rounded():
    (image,), service = making.digits(1), making.service()
    on, off = answers(service, "p_a", [image, np.clip(image + 0.001, 0, 1)], label=1, max_draws=50)
    assert on["rounded"] == 0 and 0 < off["rounded"] < 0.001 * 8 + 1e-9
    assert on["noise"] == "lattice/1" and on["step"] == "1/256"
    service.close()


def test_a_budget_of_draws_ends_with_what_is_proved_at_its_last_look():
    images, service = making.digits(4), making.service(max_draws=4000)
    for most in (20, 57, 300):
        for image, answer in zip(images, answers(service, "certify", images, max_draws=most), strict=True):
            plain = making.plain_certificate(image, "certify", service.settings, service.settings.radii, 0.001, most)
            assert {key: answer[key] for key in plain} == plain and answer["n"] <= most
    service.close()


def test_answers_of_all_budgets_lie_on_one_path():
    """So that another budget is no other try: the counts of fewer draws are a part of those of more."""
    images, service = making.digits(12), making.service(max_draws=4000)
    all_draws = answers(service, "certify", images, radius=0.15)
    longer = [image for image, answer in zip(images, all_draws, strict=True) if answer["n"] > 200]
    assert longer
    rest = [answer for answer in all_draws if answer["n"] > 200]
    for small, large in zip(answers(service, "certify", longer, radius=0.15, max_draws=200), rest, strict=True):
        assert small["n"] <= 200 and small["reason"] == "max_draws"
        assert small["count"] <= large["count"] <= small["count"] + large["n"] - small["n"]
        assert small["radius"] <= large["radius"] and small["selected"] == large["selected"]
    service.close()


def test_a_radius_asked_for_says_whether_it_is_proved():
    images, service = making.digits(12), making.service()
    found = answers(service, "certify", images, radius=0.1)
    for image, answer in zip(images, found, strict=True):
        plain = making.plain_certificate(image, "certify", service.settings, (0.1,), 0.001)
        assert {key: answer[key] for key in plain} == plain
        assert answer["proved"] == (answer["class"] is not None) and answer["radius_asked"] == 0.1
        assert answer["radius"] in (0.0, 0.1)
    assert {answer["proved"] for answer in found} == {True, False}
    service.close()


def test_p_a_is_the_engines_count():
    images, service = making.digits(3), making.service()
    found = answers(service, "p_a", images, label=[1, 2, 3], max_draws=333)
    model, card = load_checkpoint(making.checkpoint())
    for image, label, answer in zip(images, (1, 2, 3), found, strict=True):
        key = making.SECRET.key([card.sha256, repr(making.SIGMA), "p_a"], image)
        counts = making.engine(model).count(torch.from_numpy(image), key, 0, Phase("p_a", 333, 50), 0, 7)
        assert answer["count"] == counts[label] and answer["n"] == 333 and answer["p_a"] == counts[label] / 333
        assert answer["p_a_low"] <= answer["p_a"] <= answer["p_a_high"]
    service.close()


def test_the_same_image_has_the_same_answer_unless_fresh_noise_is_asked_for():
    (image,), service = making.digits(1), making.service()
    first, again = (answers(service, "p_a", [image], label=1) for _ in range(2))
    fresh = [answers(service, "p_a", [image], label=1, fresh=True)[0] for _ in range(8)]
    assert first == again and {answer["fresh"] for answer in fresh} == {True}
    assert len({answer["count"] for answer in fresh}) > 1
    other = making.service(fresh=False)
    with pytest.raises(Refused, match="fresh"):
        answers(other, "p_a", [image], label=1, fresh=True)
    service.close(), other.close()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def ticket(question, image, key, deadline=1e9):
    return Ticket(question, Stream(torch.from_numpy(image), key), deadline)


def p_a_question(draws):
    return PAQuestion(10, 0, draws, 50, making.SIGMA, 0.001)


def test_small_requests_do_not_wait_for_large_ones():
    images, scheduler = making.digits(12), Scheduler(drawer(), 64)
    large = [ticket(p_a_question(100_000), image, f"large {i}") for i, image in enumerate(images[:10])]
    scheduler.submit(large)
    assert scheduler.step()
    small = ticket(p_a_question(50), images[11], "small")
    scheduler.submit([small])
    steps = 0
    while not small.answer.done():
        assert scheduler.step()
        steps += 1
    assert steps <= 2 and not any(t.answer.done() for t in large)
    assert all(abs(t.question.drawn - large[1].question.drawn) <= 50 for t in large[1:])


def test_images_that_came_together_do_not_all_end_together():
    """All would send their answers and ask again at once, with nothing left to draw meanwhile."""
    scheduler = Scheduler(drawer(), 64)
    begun = [ticket(p_a_question(2000), image, f"{i}") for i, image in enumerate(making.digits(32))]
    scheduler.submit(begun)
    ended = []
    while len(scheduler):
        before = len(scheduler)
        scheduler.step()
        ended.append(before - len(scheduler))
    assert sum(ended) == 32 and sum(ended[: len(ended) * 9 // 10]) >= 4, ended


def test_places_that_nobody_else_needs_go_to_whoever_can_use_them():
    scheduler = Scheduler(drawer(), 4)
    alone = ticket(p_a_question(500), making.digits(1)[0], "alone")
    scheduler.submit([alone])
    assert scheduler.step() and alone.answer.result()["n"] == 500


def test_a_deadline_ends_with_what_is_proved_so_far():
    clock = Clock()
    rule = rule_for(ServeSettings().rule(making.SIGMA, 0.001, (0.0, 5.0)))
    scheduler = Scheduler(drawer(), 4, clock=clock)
    image = making.digits(1)[0]
    timely = CertifyQuestion(10, rule, 100, 10_000, 50, making.SIGMA)
    late = CertifyQuestion(10, rule, 100, 10_000, 50, making.SIGMA)
    tickets = [ticket(timely, image, "a", deadline=10.0), ticket(late, image, "b", deadline=0.0)]
    scheduler.submit(tickets)
    scheduler.step()
    assert tickets[1].answer.result()["reason"] == "deadline" and tickets[1].answer.result()["n0"] == 0
    assert tickets[1].answer.result()["abstained"] and not tickets[0].answer.done()
    scheduler.pass_seconds, clock.now = 2.0, 8.5  # another pass would end too late
    assert not scheduler.step()
    found = tickets[0].answer.result()
    assert found["reason"] == "deadline" and found["n"] > 0 and found["n0"] == 100


def test_what_does_not_fit_into_the_queue_is_refused_whole():
    images, scheduler = making.digits(3), Scheduler(drawer(), 3)
    scheduler.submit([ticket(p_a_question(100), images[0], "a")])
    with pytest.raises(Busy):
        scheduler.submit([ticket(p_a_question(100), image, "b") for image in images])
    assert len(scheduler) == 1
    scheduler.close()
    with pytest.raises(Closed):
        scheduler.submit([ticket(p_a_question(100), images[0], "a")])


def test_whoever_leaves_gets_no_more_draws():
    scheduler = Scheduler(drawer(), 3)
    gone, there = (ticket(p_a_question(5000), making.digits(1)[0], key) for key in "ab")
    scheduler.submit([gone, there])
    scheduler.step()
    assert gone.answer.cancel()
    drawn = gone.question.drawn
    while not there.answer.done():
        scheduler.step()
    assert gone.question.drawn == drawn and len(scheduler) == 0


class Breaking(torch.nn.Module):
    """Answers NaN to images that are bright throughout."""

    def forward(self, x):
        bright = x.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 0.8
        return torch.where(bright, torch.nan, x.flatten(1)[:, :10])


def test_a_model_that_answers_nan_to_one_image_fails_that_one_only():
    torch.set_num_threads(1)
    scheduler = Scheduler(Drawer(SamplingEngine(Breaking(), 10, 0.1), (1, 8, 8), 100, 50), 8)
    images = [np.full((1, 8, 8), value, dtype=np.float32) for value in (0.2, 1.0)]
    fine, broken = (ticket(p_a_question(50), image, str(i)) for i, image in enumerate(images))
    scheduler.submit([fine, broken])
    scheduler.step()
    assert fine.answer.result()["n"] == 50
    with pytest.raises(BrokenModelError):
        broken.answer.result()


def test_a_model_is_replaced_without_losing_what_was_begun():
    images, service = making.digits(6), making.service(max_draws=4000, radii=(0.0, 1.0))
    before = asyncio.run(ask(service, "certify", images))
    passes = threading.Event()
    service._meter.drawn = lambda draws, seconds: passes.set()
    model, card = load_checkpoint(making.checkpoint())
    model[-1].fc.bias.add_(torch.arange(10.0))

    async def swap_within():
        begun = asyncio.ensure_future(ask(service, "certify", images))
        await asyncio.sleep(0)
        await asyncio.to_thread(service.use, model, card, {"name": "other"})
        return await begun, await ask(service, "certify", images)

    begun, after = asyncio.run(swap_within())
    assert begun["results"] == before["results"] and begun["model"]["name"] == "digits"
    assert after["model"]["name"] == "other" and after["results"] != before["results"]
    service.close()
    with pytest.raises(Refused, match="no model"):
        asyncio.run(ask(service, "certify", images))
